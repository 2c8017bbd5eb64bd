"""The configuration of a run: pydantic models, YAML, ``--set``, and errors that name the fix.

A plug-in block (``features``, ``globals``, ``matcher``) is ``{use: NAME, option: value, …}`` or a
bare name (a plug-in or a preset); its options are validated by the plug-in's own ``Config``
(:mod:`loc.plugins.blocks`). There is no inheritance, no interpolation and no ``eval``.
"""

from loc.config.checks import Section, models_in, suggest, type_name, validate
from loc.config.pairs import (
    PAIR_CONFIGS,
    AutoPairs,
    CovisibilityPairs,
    ExhaustivePairs,
    GpsPairs,
    ListedPairs,
    PairsConfig,
    PosePairs,
    RetrievalPairs,
    SequentialPairs,
    fused_blocks,
    reranks,
)
from loc.config.ranking import DiffusionConfig, ExpansionConfig, FusionConfig, RerankConfig
from loc.config.reading import apply_overrides, parse_override, read_yaml
from loc.config.sections import (
    Block,
    EvaluateConfig,
    LocalizeConfig,
    MapConfig,
    RunConfig,
    SceneConfig,
    section_models,
)

__all__ = [
    "PAIR_CONFIGS",
    "AutoPairs",
    "Block",
    "CovisibilityPairs",
    "DiffusionConfig",
    "EvaluateConfig",
    "ExhaustivePairs",
    "ExpansionConfig",
    "FusionConfig",
    "GpsPairs",
    "ListedPairs",
    "LocalizeConfig",
    "MapConfig",
    "PairsConfig",
    "PosePairs",
    "RerankConfig",
    "RetrievalPairs",
    "RunConfig",
    "SceneConfig",
    "Section",
    "SequentialPairs",
    "apply_overrides",
    "fused_blocks",
    "models_in",
    "parse_override",
    "read_yaml",
    "reranks",
    "section_models",
    "suggest",
    "type_name",
    "validate",
]
