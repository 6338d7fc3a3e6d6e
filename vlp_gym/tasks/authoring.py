"""Has a language model write sentences for tasks, or shows those that there are."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from vlp_gym.chat import ChatModel
from vlp_gym.errors import EndpointError, InstructionError
from vlp_gym.tasks.instruction_file import Entries, held_out, plain, read_entries, write_entries
from vlp_gym.tasks.instructions import LANGUAGES, MAX_WORDS, check_instruction, instructions
from vlp_gym.tasks.metaworld import TASKS, find_task

QUESTION = """\
A robot arm stands at a table. Its task, in the plainest words: {instruction}.
Write {number} more English sentences that tell the robot to do exactly this. Cross different verbs and sentence
structures with different names of the things. Each sentence is an order of at most {max_words} words, in lower case,
without a full stop; it adds no colour, no other thing and no reason{counterpart}.
Do not repeat any of these:
{known}
Answer with a JSON list of strings and nothing else."""
"""After VLP's way of making sentences (verb structures and synonyms of nouns); the words are ours."""

LIST_MARK = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+(.+)")
ASIDE = re.compile(r"(?:i|i'm|i’m|sorry|sure|certainly|here|note|below|unfortunately)\b")
"""How a model begins what is no order to a robot."""
STRAY = re.compile(r"[{}\[\]<>:|\\]")
"""What is in no sentence, but in broken JSON, markup and headings."""


@dataclass(frozen=True)
class InstructionsConfig:
    """Of which tasks to show the sentences, and whom to ask for more."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of tasks; none means all 50."""
    endpoint: str | None = None
    """Base URL of a service that speaks OpenAI's chat completions, such as http://localhost:8000/v1. None: show the
    built-in sentences and write nothing."""
    model: str | None = None
    """What the service calls the model."""
    number: int = 40
    """New sentences for each task (VLP has 40 a task)."""
    out: Path = Path("data/instructions.json")
    """JSON file of the new sentences. Tasks that have enough in it are kept, so an interrupted run goes on."""
    rounds: int = 5
    """Times that a task is asked for until it has enough."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; unset for a service that wants none."""
    timeout_s: float = 120.0
    """Seconds that the service may say nothing."""


def author(config: InstructionsConfig) -> dict[str, Any]:
    """Show the built-in sentences of tasks by set, or have a language model write more of those to train with.

    Raises:
        EndpointError: the service fails, or writes too few sentences that can be used.
        InstructionError: the file holds something else, or sentences of another writer that would be lost.
        UnknownNameError: no such task.
    """
    names = list(dict.fromkeys(find_task(name).name for name in config.tasks)) or list(TASKS)
    if config.endpoint is None and config.model is None:
        return {
            name: {each: list(instructions(name, each)) for each in LANGUAGES} for name in names
        }
    if config.endpoint is None or config.model is None:
        raise EndpointError("name both whom to ask: --endpoint URL --model NAME")
    chat = ChatModel(config.endpoint, config.model, config.api_key_env, config.timeout_s)
    counts = write_instructions(names, config.number, config.rounds, chat, config.out)
    return {"sentences": counts, "written": str(config.out)}


def write_instructions(
    names: list[str], number: int, rounds: int, chat: ChatModel, out: Path
) -> dict[str, int]:
    """Write new sentences of tasks to a file, saved after every answer, and return how many each task has.

    A sentence is new when its task does not have it built in. None is a sentence of the task that undoes it, or kept
    for testing under any task; that a verb kept for testing comes with another noun is not noticed.

    Args:
        names: names in `TASKS`.
        number: sentences that each should have.
        rounds: most questions about one task.
        chat: the model that is asked.
        out: JSON file; what it holds already counts and stays.

    Raises:
        EndpointError: the service fails, or too few sentences can be used.
        InstructionError: the file holds something else, or sentences of another writer that would be lost.
    """
    entries = read_entries(out) if out.exists() else {}
    missing = [name for name in names if len(_sentences(entries, name)) < number]
    for name in missing:
        _check_writer(name, entries, chat, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = len(names) - len(missing)
    for name in tqdm(missing, total=len(names), initial=done, desc="tasks", disable=None):
        for sentences in _growing(name, number, rounds, chat, _sentences(entries, name)):
            entries[name] = _entry(name, number, chat, sentences)
            write_entries(out, entries)
    counts = {name: len(_sentences(entries, name)) for name in names}
    if short := [f"{name} ({n})" for name, n in counts.items() if n < number]:
        raise EndpointError(
            f"{chat.name} wrote fewer than {number} usable sentences in {rounds} rounds for {', '.join(short)}; "
            "run the same command again to ask for the rest, lower --number, or take another model"
        )
    return counts


def question(name: str, number: int, have: Iterable[str] = ()) -> str:
    """Return what a model is asked; it shows no sentence that is kept for testing."""
    task = TASKS[name]
    undoes = (
        f", and never means to {TASKS[task.counterpart].instruction}" if task.counterpart else ""
    )
    return QUESTION.format(
        instruction=task.instruction,
        number=number,
        max_words=MAX_WORDS,
        counterpart=undoes,
        known="\n".join((*instructions(name), *have)),
    )


def sentences_in(answer: str) -> list[str]:
    r"""Return the candidates in an answer: a JSON list, one that breaks off, a marked list, or else every line.

    >>> sentences_in('Sure: ["open it", "pull it open"]')
    ['open it', 'pull it open']
    >>> sentences_in("Some ideas, 1) first:\n1. open it\n2. pull it open")
    ['open it', 'pull it open']
    """
    answer = answer.rpartition("</think>")[2]
    if found := max(_json_lists(answer), key=len, default=[]):
        return found
    if re.search(r"^\s*[\[{]", answer, re.MULTILINE):
        return re.findall(r'"((?:[^"\\\n]|\\.)+)"', answer)
    lines = answer.splitlines()
    return [mark[1] for line in lines if (mark := LIST_MARK.match(line))] or lines


def usable(candidates: Iterable[str], name: str, have: Iterable[str] = ()) -> list[str]:
    """Return the candidates that are new sentences of a task, each once, written the way that ours are.

    >>> usable(["Pry the door open.", "close the door", "pry the door open"], "DoorOpen")
    ['pry the door open']
    """
    counterpart = TASKS[name].counterpart
    undoing = instructions(counterpart) if counterpart else ()
    taken = {plain(sentence) for sentence in (*instructions(name), *undoing, *have)} | held_out()
    found = []
    for candidate in candidates:
        sentence = _tidied(candidate)
        if sentence and plain(sentence) not in taken:
            taken.add(plain(sentence))
            found.append(sentence)
    return found


def _tidied(candidate: str) -> str | None:
    try:
        sentence = check_instruction(candidate.strip(" \t\n\r\"'“”‘’`*_.,;!").lower())
    except InstructionError:
        return None
    is_order = " " in sentence and sentence.isprintable() and not ASIDE.match(sentence)
    return sentence if is_order and not STRAY.search(sentence) else None


def _json_lists(text: str) -> list[list[str]]:
    lists = []
    for opening in re.finditer(r"\[(?!\s*\[)", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        # Some answer with objects around the sentences.
        values = [
            v for item in found for v in (item.values() if isinstance(item, dict) else [item])
        ]
        lists.append([value for value in values if isinstance(value, str)])
    return lists


def _growing(
    name: str, number: int, rounds: int, chat: ChatModel, sentences: list[str]
) -> Iterator[list[str]]:
    """Yield the sentences of a task after every answer, old and new ones."""
    for _ in range(rounds):
        if len(sentences) >= number:
            return
        answer = chat.ask(question(name, number - len(sentences), sentences))
        sentences = (sentences + usable(sentences_in(answer), name, sentences))[:number]
        if sentences:
            yield sentences


def _sentences(entries: Entries, name: str) -> list[str]:
    sentences: list[str] = entries.get(name, {}).get("sentences", [])
    return sentences


def _check_writer(name: str, entries: Entries, chat: ChatModel, out: Path) -> None:
    if name not in entries:
        return
    writer = entries[name].get("model"), entries[name].get("endpoint")
    if writer != (chat.name, chat.address):
        n_there, whom = len(entries[name]["sentences"]), writer[0] or "hand"
        raise InstructionError(
            f"{out} holds {n_there} sentences of {name} by {whom}, which would be mixed with others; choose another "
            f"--out, or at most --number {n_there}"
        )


def _entry(name: str, number: int, chat: ChatModel, sentences: list[str]) -> dict[str, Any]:
    return {
        "sentences": sentences,
        "model": chat.name,
        "endpoint": chat.address,
        # The first one; later ones ask for fewer and name what is there.
        "prompt": question(name, number),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
