"""Place recognition from its authors' repositories, by torch.hub: MegaLoc, EigenPlaces, CosPlace, SALAD.

The code of these networks is theirs and is fetched, at a pinned revision, when one is first used; none of it
is part of this package. G. Berton and C. Masone, MegaLoc, CVPR Workshops 2025; G. Berton et al., EigenPlaces,
ICCV 2023; G. Berton, C. Masone and B. Caputo, CosPlace, CVPR 2022; S. Izquierdo and J. Civera, Optimal
Transport Aggregation for Visual Place Recognition, CVPR 2024.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from loc.errors import ContractError, PluginError, WeightsError
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array
from loc.weights.files import cache_folder, locate, offline, sha256_of

if TYPE_CHECKING:
    import torch

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HubConfig(PluginConfig):
    """Options of every network from a repository."""

    repository: str | None = Field(
        None, description="folder with the authors' repository; null: theirs on GitHub, at a pinned revision"
    )
    size_px: int | None = Field(
        None, ge=14, multiple_of=14, description="both sides of the image that is shown; null: as it is"
    )


class _Square(HubConfig):
    size_px: int | None = Field(
        322, ge=14, multiple_of=14, description="both sides of the image that is shown, as published"
    )


class Hub:
    """A network of torch.hub as a global extractor: RGB normalised as for ImageNet, a vector per image."""

    Config: ClassVar[type[HubConfig]]
    version: ClassVar[int] = 1
    licence: ClassVar[str]
    paper: ClassVar[str]
    weights: ClassVar[tuple[WeightFile, ...]]
    source: ClassVar[Literal["image", "features"]] = "image"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = 32
    needs_fit: ClassVar[bool] = False
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 1024}
    #: ``owner/name:revision``, a commit: a branch may change what the network computes.
    pinned: ClassVar[str]
    entry: ClassVar[str] = "get_trained_model"

    def __init__(self, config: Any, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        name = type(self).__name__
        model = load_from_hub(
            name,
            config.repository or self.pinned,
            self.entry,
            locate(self.weights_for(config)[0]),
            local=config.repository is not None,
            arguments=self.arguments(config),
        )
        self._model = model.to(device).eval()

    @classmethod
    def weights_for(cls, config: Any) -> tuple[WeightFile, ...]:  # noqa: ARG003
        """The file that a configuration needs."""
        return cls.weights

    @classmethod
    def inputs(cls, config: Any) -> dict[str, Any]:
        """What the fingerprint says of a folder's code, which may be edited, and of the pinned revision.

        Raises:
            PluginError: the folder holds no code.
        """
        if config.repository is None:
            return {"pinned": cls.pinned}
        folder = Path(config.repository)
        files = sorted(path for path in folder.rglob("*.py") if path.is_file())
        if not files:
            raise PluginError(
                f"{cls.__name__}: {folder} has no hubconf.py", "name the folder of the authors' repository"
            )
        return {"code": [[path.relative_to(folder).as_posix(), sha256_of(path)] for path in files]}

    @staticmethod
    def arguments(config: Any) -> dict[str, Any]:  # noqa: ARG004
        """Of the entry point."""
        return {}

    def __call__(self, images: torch.Tensor) -> Float32[Array, "b d"]:
        """Unit rows of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        import torch
        from torch.nn.functional import interpolate

        name = type(self).__name__.lower()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"{name} takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        rows = []
        with torch.inference_mode():
            for image in (images - mean) / std:
                shown = image[None]
                if self.config.size_px is not None:
                    size = (self.config.size_px, self.config.size_px)
                    shown = interpolate(
                        shown, size=size, mode="bilinear", antialias=True, align_corners=False
                    )
                row = self._model(shown)
                if not isinstance(row, torch.Tensor) or row.ndim != 2 or len(row) != 1:
                    raise ContractError(f"{name}: its network returned no vector (1, d)")
                if not torch.isfinite(row).all():
                    raise ContractError(f"{name}: its network returned NaN or infinity")
                rows.append(row[0].float().cpu().numpy())
        if not rows:
            return np.zeros((0, 0), np.float32)
        found = np.stack(rows)
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)


def load_from_hub(
    name: str, repository: str, entry: str, weights: Path, *, local: bool, arguments: dict[str, Any]
) -> Any:
    """What an entry point of a repository returns, with its own download of weights answered by ``weights``.

    The repository's code runs. Repositories and weights lie in ``hub/`` of the weights cache.

    Raises:
        WeightsError: the repository is not here and may not be downloaded; tensors are missing or unknown.
        PluginError: its code needs a package that is not installed, or fails.
    """
    import torch

    if local and not (Path(repository) / "hubconf.py").is_file():
        raise PluginError(
            f"{name}: {repository} has no hubconf.py", "name the folder of the authors' repository"
        )
    hub = cache_folder() / "hub"
    cached = hub / repository.replace("/", "_").replace(":", "_")
    if not local and offline() and not cached.is_dir():
        raise WeightsError(
            f"{name}: {repository} is not on this machine, and LOC_OFFLINE forbids the download",
            f"copy that revision into a folder and set globals.repository, or into {cached}",
        )
    _offer(weights, hub / "checkpoints" / weights.name)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(hub))
    try:
        load: Any = torch.hub.load
        return load(
            repository,
            entry,
            source="local" if local else "github",
            trust_repo=True,  # the revision is pinned, or the user's own
            skip_validation=True,  # which asks GitHub for branches; a commit is none
            verbose=False,
            **arguments,
        )
    except ImportError as error:
        raise PluginError(f"{name}: its code cannot be imported: {error}", "install what it needs") from error
    except (RuntimeError, AttributeError, TypeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        if "Missing dependencies" in said:
            packages = said.partition(":")[2].strip()
            raise PluginError(f"{name}: its code needs {packages}", f"pip install {packages}") from error
        if "state_dict" in said:
            raise WeightsError(
                f"{weights} does not fit the network of {name}: {said[:600]}",
                "is it the file of another model or release?",
            ) from error
        raise PluginError(
            f"{name}: {repository} cannot be loaded: {said[:300]}", "run with --debug"
        ) from error
    finally:
        torch.hub.set_dir(before)


def _offer(weights: Path, place: Path) -> None:
    """Put a file where torch.hub looks before it downloads."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and place.samefile(weights):
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        temporary.symlink_to(weights.resolve())
    except OSError:  # a file system or a system without links
        shutil.copyfile(weights, temporary)
    temporary.replace(place)


def _released(repository: str, tag: str, file: str, licence: str, paper: str) -> WeightFile:
    url = f"https://github.com/{repository}/releases/download/{tag}/{file}"
    return WeightFile(url, None, licence, paper, output_checked=False)


class MegaLoc(Hub):
    """DINOv2 with optimal-transport aggregation, 8448 values. Never run here with the authors' weights."""

    Config = _Square
    licence: ClassVar[str] = "MIT"
    paper: ClassVar[str] = "G. Berton and C. Masone, MegaLoc: One Retrieval to Place Them All, CVPRW 2025"
    pinned: ClassVar[str] = "gmberton/MegaLoc:3f6e01cbc7fe16117aeec837d318c84a54126750"
    weights: ClassVar[tuple[WeightFile, ...]] = (
        _released("gmberton/MegaLoc", "v1.0", "megaloc.torch", licence, paper),
    )


class Salad(Hub):
    """DINOv2 with optimal-transport aggregation, 8448 values; GPL-3.0, so optional and never bundled.

    Never run here with the authors' weights.
    """

    Config = _Square
    licence: ClassVar[str] = "GPL-3.0 (the authors' repository, fetched when it is used)"
    paper: ClassVar[str] = "S. Izquierdo and J. Civera, Optimal Transport Aggregation, CVPR 2024"
    pinned: ClassVar[str] = "serizba/salad:07d713f542641faeecae14e305f19a79466f4211"
    entry: ClassVar[str] = "dinov2_salad"
    weights: ClassVar[tuple[WeightFile, ...]] = (
        _released("serizba/salad", "v1.0.0", "dino_salad.ckpt", "GPL-3.0", paper),
    )


class _Backbones(HubConfig):
    backbone: Literal["VGG16", "ResNet18", "ResNet50", "ResNet101", "ResNet152"] = Field(
        "ResNet50", description="of those that the authors trained"
    )
    dim: int = Field(2048, ge=32, le=2048, description="values of the descriptor, as trained")


class EigenPlaces(Hub):
    """ResNet, GeM and a linear layer. Never run here with the authors' weights."""

    Config = _Backbones
    licence: ClassVar[str] = "MIT"
    paper: ClassVar[str] = "G. Berton et al., EigenPlaces: Training Viewpoint Robust Models, ICCV 2023"
    pinned: ClassVar[str] = "gmberton/EigenPlaces:92d54ea9b66b4a1e43f12230f7daa35b0d5b6a27"
    weights: ClassVar[tuple[WeightFile, ...]] = (
        _released("gmberton/EigenPlaces", "v1.0", "ResNet50_2048_eigenplaces.pth", licence, paper),
    )

    @classmethod
    def weights_for(cls, config: Any) -> tuple[WeightFile, ...]:
        repository, kind = cls.pinned.partition(":")[0], cls.__name__.lower()
        file = f"{config.backbone}_{config.dim}_{kind}.pth"
        return (_released(repository, "v1.0", file, cls.licence, cls.paper),)

    @staticmethod
    def arguments(config: Any) -> dict[str, Any]:
        return {"backbone": config.backbone, "fc_output_dim": config.dim}


class CosPlace(EigenPlaces):
    """ResNet, GeM and a linear layer, trained as a classifier. Never run here with the authors' weights."""

    paper: ClassVar[str] = "G. Berton et al., Rethinking Visual Geo-localization, CVPR 2022"
    pinned: ClassVar[str] = "gmberton/CosPlace:5b974d3ad206d10955201bc222af785e167be34a"
    weights: ClassVar[tuple[WeightFile, ...]] = (
        _released("gmberton/CosPlace", "v1.0", "ResNet50_2048_cosplace.pth", "MIT", paper),
    )
