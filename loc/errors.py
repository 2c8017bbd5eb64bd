"""Every error that `loc` raises on purpose, on one page.

A message says *what* happened, *where*, what was *expected*, and what to type next. The first
line states the problem; the indented second line (``next_step``) says what to do about it.
"""

from __future__ import annotations


class LocError(Exception):
    """Base of all errors of `loc`.

    Args:
        message: what went wrong and where, one line.
        next_step: what the user should do now, one line; printed indented under the message.
    """

    exit_code = 1

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return self.message if self.next_step is None else f"{self.message}\n  {self.next_step}"

    def __reduce__(self) -> tuple[type[LocError], tuple[str, str | None]]:
        # Errors cross process borders (extraction workers), so both fields must survive a pickle.
        return type(self), (self.message, self.next_step)


class ConfigError(LocError):
    """An unknown option, a value out of range, an unknown plug-in or preset name."""

    exit_code = 2


class PluginError(LocError):
    """A plug-in cannot be imported, built or used."""

    exit_code = 4


class ContractError(PluginError):
    """A plug-in returned something that its protocol does not allow."""


class WeightsError(LocError):
    """Weights are missing, do not match their hash, or are not safe to load."""

    exit_code = 4


class DataError(LocError):
    """Input that cannot be used: images, lists, intrinsics, models."""

    exit_code = 3


class StoreError(DataError):
    """An artefact on disk is damaged, or was made by something else."""


class ResourceError(LocError):
    """Not enough memory or disk for what was asked, or a library of the system that it needs is missing."""


class MapError(LocError):
    """Mapping failed or its result breaks a post-condition."""

    exit_code = 5


class SubmissionError(LocError):
    """Poses that a benchmark's server would refuse or silently score as zero."""

    exit_code = 3
