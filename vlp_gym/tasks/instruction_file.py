"""Files of sentences for tasks: written by hand or by `vlp instructions`, to train with."""

import functools
import json
import re
from pathlib import Path
from typing import Any

from vlp_gym.atomic import atomic_write_text
from vlp_gym.errors import InstructionError
from vlp_gym.tasks.instructions import LANGUAGES, check_instruction, instructions
from vlp_gym.tasks.metaworld import TASKS, find_task

Entries = dict[str, dict[str, Any]]
"""For every task `sentences`, and what else the file says of them."""


def load_instructions(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the sentences of every task in a JSON file.

    The file is one of `vlp instructions`, or by hand `{"DoorOpen": ["open the door", "swing the door open"]}`. What
    differs only in white space is one sentence.

    Raises:
        InstructionError: no such file, not of that form, no sentence, or one of a set that is kept for testing.
        UnknownNameError: no such task.
    """
    return {name: tuple(entry["sentences"]) for name, entry in read_entries(path).items()}


def read_entries(path: Path) -> Entries:
    """Return what a file says of every task, by the names in `TASKS`; raises like `load_instructions`."""
    entries: Entries = {}
    for spelling, entry in _read_object(path).items():
        name = find_task(spelling).name
        if name in entries:
            raise InstructionError(f"{path} names {name} twice; make them one")
        fields = entry if isinstance(entry, dict) else {"sentences": entry}
        try:
            entries[name] = fields | {"sentences": _checked(fields.get("sentences"))}
        except InstructionError as error:
            raise InstructionError(f"{path}, {spelling}: {error}") from error
    return entries


def write_entries(path: Path, entries: Entries) -> None:
    """Write a file that `load_instructions` reads, whole or not at all."""
    atomic_write_text(path, json.dumps(entries, indent=1) + "\n")


def plain(sentence: str) -> str:
    """Return the words of a sentence alone, to compare it by.

    >>> plain("Open the  pull-out drawer.")
    'open the pull out drawer'
    """
    return re.sub(r"\W+", " ", sentence.casefold()).strip()


@functools.cache
def held_out() -> frozenset[str]:
    """Return the sentences of all tasks that are kept for testing, as `plain` words."""
    kept = (language for language in LANGUAGES if language != "seen")
    return frozenset(
        plain(sentence)
        for language in kept
        for name in TASKS
        for sentence in instructions(name, language)
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InstructionError(
            f"no sentences at {path}; `vlp instructions` writes such a file"
        ) from error
    except ValueError as error:
        raise InstructionError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InstructionError(
            f'{path} holds no sentences by task; it should read {{"DoorOpen": ["open the door", ...], ...}}'
        )
    return found


def _checked(sentences: Any) -> list[str]:
    is_list = isinstance(sentences, list) and all(isinstance(each, str) for each in sentences)
    if not is_list or not sentences:
        raise InstructionError('expected a list of sentences, such as ["open the door"]')
    checked = list(dict.fromkeys(check_instruction(sentence) for sentence in sentences))
    for sentence in checked:
        if plain(sentence) in held_out():
            raise InstructionError(
                f"{sentence!r} is kept for testing (see `vlp instructions`), training with it would spoil "
                "`vlp evaluate`; leave it out"
            )
    return checked
