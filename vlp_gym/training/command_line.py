"""The command line that gives a config."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def command_line(words: Sequence[str], config: Any, leave_out: Sequence[str] = ()) -> str:
    """Return what to type for a config: the words that it begins with, and what differs from the defaults.

    Args:
        words: program, subcommand, and what has no flag.
        config: an instance of a dataclass that tyro reads.
        leave_out: names of its fields that are not typed.

    >>> from dataclasses import make_dataclass
    >>> run = make_dataclass("Run", [("n_steps", int, 5), ("video", bool, True), ("tasks", tuple, ())])
    >>> command_line(["vlp", "run"], run(video=False, tasks=("Reach", "Push")))
    'vlp run --no-video --tasks Reach Push'
    """
    typed = list(words)
    for field in fields(config):
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        if field.name in leave_out or value == field.default:
            continue
        typed += [f"--no-{flag}"] if value is False else [f"--{flag}", *_words(value)]
    return shlex.join(typed)


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(word) for item in value.items() for word in item]
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
