"""What is known of a file of weights before it is here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """Weights of a plug-in: where they come from and what they may be used for.

    Attributes:
        url: where the authors offer it.
        sha256: of the file; None: pinned when it is first used, and checked ever after.
        licence: of the weights themselves.
        paper: where the method is described.
        mirrors: other places of the same bytes, tried in order.
        commercial_ok: whether the licence allows commercial use; None: it does not say.
        note: what a user should know before fetching.
        file: its name in a weights folder, where the address's is too general.
        output_checked: whether the plug-in's output was checked with this very file; False marks it
            `weights not verified here` and keeps it out of tables of results.
        offered: whether the address is that of the file; False: of a page that tells of it.
        stands_for: names of files that this one replaces where they are not at hand and not offered.
    """

    url: str
    sha256: str | None
    licence: str
    paper: str
    mirrors: tuple[str, ...] = ()
    commercial_ok: bool | None = None
    note: str = ""
    file: str = ""
    output_checked: bool = True
    offered: bool = True
    stands_for: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in a weights folder: the last part of its address, if that says enough."""
        return self.file or self.url.rpartition("/")[2].partition("?")[0]
