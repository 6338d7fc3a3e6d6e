"""Sentences for every task, in sets: one to train with, and others to see whether words were understood."""

import functools
import re
from itertools import product
from typing import Literal, get_args

from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.tasks.metaworld import TASKS, find_task
from vlp_gym.tasks.sentences import STATES, WORDINGS

MAX_WORDS = 40
"""Longest instruction; CLIP's text encoders read 77 tokens, and most words are one or two of them."""

Language = Literal["seen", "unseen", "phrase", "description", "correct_colour", "incorrect_colour"]
"""Sets of sentences (after VLP, table 6). Training uses `seen` alone; no sentence of another set is a training
sentence of any task. `unseen` crosses known verbs and nouns anew, `phrase` has other verbs, `description` says what is
to be seen in the end, the last two add the colour of the object, or another one."""
LANGUAGES: tuple[Language, ...] = get_args(Language)

HELD_OUT_EVERY = 6
"""One crossing of verb and noun in this many is kept out of training."""
COLOURED = 4
"""Verb structures that the sets with colours are made of."""
WRONG_COLOURS = ("purple", "yellow", "pink")
"""Colours that no object of Meta-World is called by."""
COLOURS = frozenset(wording.colour for wording in WORDINGS.values()) | set(WRONG_COLOURS)
"""Words that training sentences do without, and that turn hardly a label."""


def instructions(task_name: str, language: str = "seen") -> tuple[str, ...]:
    """Return the sentences of a task in one of the sets of `Language`, the default instruction first of `seen`.

    >>> instructions("DoorOpen")[0], instructions("DoorOpen", "description")[0]
    ('open the door', 'the door is open')

    Raises:
        UnknownNameError: no such task or set.
    """
    if language not in LANGUAGES:
        raise UnknownNameError.of("set of sentences", language, list(LANGUAGES))
    task = find_task(task_name)
    name = task.said_like or task.name
    if language == "seen":
        said = [TASKS[name].instruction, *_crossed(name, held_out=False), *_by_state(name)]
        return tuple(dict.fromkeys(said))
    return tuple(each for each in dict.fromkeys(_made(name, language)) if each not in _trained_on())


def _made(name: str, language: str) -> list[str]:
    wording = WORDINGS[name]
    if language == "unseen":
        return _crossed(name, held_out=True)
    if language == "phrase":
        return [s.format(noun=noun) for s, noun in product(wording.phrases, wording.nouns)]
    if language == "description":
        return list(wording.descriptions)
    colours = (wording.colour,) if language == "correct_colour" else WRONG_COLOURS
    thing = wording.nouns[0].removeprefix("the ")
    return [
        structure.format(noun=f"the {colour} {thing}")
        for structure, colour in product(wording.structures[:COLOURED], colours)
    ]


def _crossed(name: str, *, held_out: bool) -> list[str]:
    wording = WORDINGS[name]
    return [
        structure.format(noun=noun)
        for (verb, structure), (place, noun) in product(
            enumerate(wording.structures), enumerate(wording.nouns)
        )
        # The diagonal, so that training still meets every verb and every noun.
        if ((verb + place) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    ]


def _by_state(name: str) -> list[str]:
    wording = WORDINGS[name]
    if wording.state is None:
        return []
    wanted, unwanted = wording.state
    return [
        structure.format(noun=noun, wanted=wanted, unwanted=unwanted)
        for structure, noun in product(STATES, wording.nouns)
    ]


@functools.cache
def _trained_on() -> frozenset[str]:
    return frozenset(sentence for name in TASKS for sentence in instructions(name))


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a sentence in lower case, in order.

    >>> words_of("Close the robot's pull-out drawer!")
    ('close', 'the', "robot's", 'pull', 'out', 'drawer')
    """
    return tuple(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower()))


def baseline_of(task_name: str) -> str:
    """Return what the scene of a task is about, without what to do: VLM-RM's baseline (VLP, table 11).

    >>> baseline_of("DoorClose")
    'door'

    Raises:
        UnknownNameError: no such task.
    """
    task = find_task(task_name)
    return WORDINGS[task.said_like or task.name].nouns[0].removeprefix("the ")


def check_instruction(text: str) -> str:
    """Return an instruction without surrounding white space.

    Raises:
        InstructionError: it is not a sentence: empty, no letters, none of them Latin, or longer than `MAX_WORDS`.
    """
    if not isinstance(text, str):
        raise InstructionError(f"an instruction is a string, got {type(text).__name__}")
    stripped = " ".join(text.split())
    if not any(letter.isalpha() for letter in stripped):
        raise InstructionError(
            f"the instruction {text!r} has no words; say what the robot should do, such as 'close the door'"
        )
    if not re.search("[a-zA-Z]", stripped):
        raise InstructionError(
            f"the instruction {text!r} is not English, which is what the models read; say it as in 'close the door'"
        )
    n_words = len(stripped.split())
    if n_words > MAX_WORDS:
        raise InstructionError(
            f"the instruction has {n_words} words, the text encoder reads {MAX_WORDS}; say it shorter"
        )
    return stripped


assert set(WORDINGS) == set(TASKS), "every task needs its words"
