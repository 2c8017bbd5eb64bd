"""Which images are the database of an import from hloc: those of the list that the model has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from loc.errors import DataError
from loc.layouts.colmap import read_model
from loc.layouts.lists import read_entries

Pair = tuple[str, str]


@dataclass(frozen=True)
class Database:
    """A list of names and a model with poses, either of which may be missing.

    Seldom is every image of a list registered, and the layout ``colmap`` asks for a pose of each: with
    both, the list has to be cut to the model (:attr:`is_cut`).
    """

    image_list: Path | None
    model: Path | None

    @property
    def is_cut(self) -> bool:
        return self.image_list is not None and self.model is not None

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """The image list, in its order."""
        return () if self.image_list is None else tuple(entry.name for entry in read_entries(self.image_list))

    @cached_property
    def names(self) -> frozenset[str] | None:
        """The database images; None: all photos that are no queries."""
        poses = None if self.model is None else frozenset(read_model(self.model)[0])
        if self.image_list is None:
            return poses
        names = frozenset(self.listed) if poses is None else poses.intersection(self.listed)
        if not names:
            raise DataError(
                f"no image of {self.image_list} is in the model {self.model}",
                "give the list that goes with the model, or leave --image-list out",
            )
        return names

    def cut(self) -> tuple[list[str], list[str]]:
        """Listed names that are in the database, and those that are not; both in the list's order."""
        names = self.names or frozenset()
        return [name for name in self.listed if name in names], [
            name for name in self.listed if name not in names
        ]

    def of_scene(self, pairs: dict[Pair, None], queries: frozenset[str]) -> dict[Pair, None]:
        """The pairs of which both images are database images or queries."""
        if self.names is None:
            return pairs
        scene = self.names | queries
        return dict.fromkeys(pair for pair in pairs if scene.issuperset(pair))
