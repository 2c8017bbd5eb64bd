"""Errors at the border: three lines and an exit code, never a traceback."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from loc.errors import LocError


class Guard(TyperGroup):
    """The group of commands, with what they raise turned into messages and exit codes."""

    debug: ClassVar[bool] = False

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            code = _say("interrupted: finished work is kept", "run the same command again to resume", 130)
        except LocError as error:
            if self.debug:
                raise
            code = _say(f"{type(error).__name__}: {error.message}", error.next_step, error.exit_code)
        except MemoryError:
            if self.debug:
                raise
            code = _say("out of memory", "use fewer --workers, or shrink the largest photos", 1)
        except BrokenPipeError:  # the reader of our output went away: `loc … | head`
            code = 1
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
            if self.debug or type(error).__module__.split(".")[0] in ("typer", "click"):
                raise
            code = _say(
                f"{type(error).__name__}: {error}",
                "this is a bug in loc: run again with --debug and report the traceback",
                1,
            )
        raise typer.Exit(code)


def _say(message: str, next_step: str | None, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    if next_step:
        sys.stderr.write(f"  {next_step}\n")
    return code
