"""The command line. Each command is a few calls of the Python API."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path

import typer

import rlgf
from rlgf.cli import lists, models, runs, texts
from rlgf.cli.runs import refuse
from rlgf.errors import FailedElsewhereError, UserError, own_traceback

app = typer.Typer(
    name="rlgf",
    help="Reinforcement learning with guided feedback for language models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
)
for commands in (runs, texts, models, lists):
    app.add_typer(commands.app)


_formatted = warnings.formatwarning


def _sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours without the place that gave it, which says nothing to whoever reads it."""
    if Path(filename).is_relative_to(Path(rlgf.__file__).parent):
        return f"rlgf: {message}\n"
    return _formatted(message, category, filename, lineno, line)


def main() -> None:
    """Entry point: what the user can mend is one sentence on standard error, exit code 2.

    What the user's own code raises is shown from there on, exit code 1.
    """
    warnings.formatwarning = _sentence
    # Bars for the loading and saving of small files would bury what a run says.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the characters of a text that is shown would end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Some versions of typer return the code of an early end, such as Ctrl-C, instead of raising it.
        ended = app(standalone_mode=False)
    except FailedElsewhereError:
        sys.exit(2)  # the process that failed says why
    except UserError as error:
        refuse(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            refuse("the disk is full: free some space and run the command again.")
            sys.exit(2)
        show = getattr(error, "show", None)
        if show is None:
            sys.stderr.write(own_traceback(error))
            sys.exit(1)
        # As the command lines of other trainers are written.
        option = str(getattr(error, "option_name", "")).lstrip("-")
        if "." in option:
            refuse(f"--{option} is no option: an override has no dashes, as {option}=VALUE.")
            sys.exit(2)
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if ended:
        sys.exit(ended)
