"""The command line of every agent: a new run, or `--resume FOLDER`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from vlp_gym.errors import USER_ERRORS

ConfigT = TypeVar("ConfigT")


def command_line(
    kind: type[ConfigT],
    learn: Callable[[ConfigT], Any],
    go_on: Callable[[Path], Any],
    description: str | None,
) -> None:
    """Run what the command line asks for; what a user can get wrong is said in one line.

    Args:
        kind: the config of a run, a dataclass whose fields are the options.
        learn: starts a run.
        go_on: goes on with the run of a folder, which knows all its options.
        description: the first lines of `--help`.
    """
    words = sys.argv[1:]
    try:
        if words[:1] == ["--resume"]:
            if len(words) != 2:
                sys.exit(
                    "--resume FOLDER stands alone, all options are taken from the run in that folder; "
                    f"got {' '.join(words)}"
                )
            go_on(Path(words[1]))
        else:
            note = "A run that was stopped or killed goes on with --resume FOLDER."
            learn(tyro.cli(kind, description=f"{description}\n\n{note}"))
    except USER_ERRORS as error:
        sys.exit(f"{error}")
