"""What a converted file says of its tensors, beside them: read from the graph, checked when it is read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Version of the facts; raised when a reader of ours would misunderstand older ones.
FORMAT = 1


class LayerFacts(BaseModel):
    """How one layer is computed.

    Attributes:
        stride: of both axes.
        pad: zeros before and after either axis; ``same``: TensorFlow's rule, which depends on the size.
        epsilon: of the batch norm that follows; None: there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stride: Literal[1, 2]
    pad: Literal["same"] | tuple[int, int]
    epsilon: float | None = Field(None, gt=0, lt=1)


class LocalFacts(BaseModel):
    """Local features.

    Attributes:
        attention_input: what the attention looks at; with ``autoencoder`` features are its 128 values.
        box_offsets, box_stride: the box of cell i is ``box_stride * i + box_offsets``, px.
        nms_iou: boxes that overlap a better one by more are dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    attention_input: Literal["trunk", "autoencoder"]
    box_offsets: tuple[float, float]
    box_stride: float = Field(gt=0)
    nms_iou: float = Field(ge=0, le=1)


class PoolingFacts(BaseModel):
    """The generalized mean of the global descriptor: its power, and the least activation raised to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    power: float = Field(gt=0)
    least: float = Field(ge=0)


class NetworkFacts(BaseModel):
    """DELF, DELG or a global-only model.

    Attributes:
        release, sha256: where the tensors come from.
        layers: of the trunk and the heads, by our names.
        input_offset, input_scale: pixels of 0 … 255 become ``(x - offset) / scale``.
        resize: grid of the bilinear resize.
        local, pooling: of the heads; None: it has none.
        assumed: which of these were not read but are its trainer's defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1]
    release: str
    sha256: str
    kind: Literal["delf", "delg", "global"]
    backbone: Literal["resnet_v1_50", "resnet_v1_101"]
    layers: dict[str, LayerFacts]
    input_offset: float
    input_scale: float = Field(gt=0)
    resize: Literal["legacy", "half_pixel", "corners"]
    local: LocalFacts | None = None
    pooling: PoolingFacts | None = None
    assumed: str = ""

    @property
    def has_autoencoder(self) -> bool:
        """Whether local features are those of an autoencoder, 128-D."""
        return self.local is not None and self.local.attention_input == "autoencoder"

    @model_validator(mode="after")
    def _complete(self) -> NetworkFacts:
        heads = {"delf": (True, False), "delg": (True, True), "global": (False, True)}[self.kind]
        if (self.local is not None, self.pooling is not None) != heads:
            raise ValueError(f"a {self.kind} model has other heads")
        return self


class CodebookFacts(BaseModel):
    """A codebook of Detect-to-Retrieve: ``words`` rows of ``dim`` values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    release: str
    sha256: str
    kind: Literal["codebook"]
    words: int = Field(gt=0)
    dim: int = Field(gt=0)


Facts = NetworkFacts | CodebookFacts
