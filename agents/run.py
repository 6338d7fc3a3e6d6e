"""The run folder: files that a kill at any moment leaves whole, and where they come from."""

import dataclasses
import fcntl
import json
import logging
import os
import platform
import shutil
import subprocess
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.doctor import installed_versions
from vlp_gym.errors import BusyRunError

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT")
CONFIG = "config.json"
"""The settings of a run, in its folder."""
_HELD: dict[tuple[int, int], int] = {}
"""Descriptors of the folders that this process holds, by device and inode."""


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON; tuples become lists, paths become strings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the union of their keys; a nested row becomes columns of its own.

    Values that a row lacks stay empty.
    """
    import csv  # noqa: PLC0415

    rows = [flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row without nesting.

    >>> flat({"step": 5, "seconds": {"draw": 0.5}})
    {'step': 5, 'seconds.draw': 0.5}
    """
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            columns |= flat(value, f"{prefix}{name}.")
        else:
            columns[prefix + name] = value
    return columns


def new_run_folder(out: Path | None, name: str) -> Path:
    """Make the folder of a new run.

    Args:
        out: the folder; None: one under runs/, named by what is run and when.
        name: what is run.

    Raises:
        FileExistsError: there is a run in it already.
        BusyRunError: another process is at work in it.
    """
    folder = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if (folder / CONFIG).exists():
        raise FileExistsError(
            f"{folder} holds a run already; continue it with --resume {folder}, "
            "or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder)
    return folder


def hold(folder: Path) -> None:
    """Keep a run folder to this process until it ends, however it ends: two would overwrite each other's files.

    On a file system without locks nothing is kept, which is said.

    Raises:
        BusyRunError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    about = os.fstat(descriptor)
    if (about.st_dev, about.st_ino) in _HELD:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyRunError(
            f"another process is at work in {folder}; wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s); start nothing else in it", folder, error.strerror)
    _HELD[about.st_dev, about.st_ino] = descriptor


def write_config(folder: Path, config: Any) -> None:
    """Write a config dataclass as config.json, nested dataclasses as nested objects."""
    write_json(folder / CONFIG, dataclasses.asdict(config))


def read_config(folder: Path, kind: type[ConfigT]) -> ConfigT:
    """Return the config of a run folder.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    path = folder / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no run: there is no config.json in it")
    return config_of(kind, json.loads(path.read_text(encoding="utf-8")))


def config_of(kind: type[ConfigT], content: Mapping[str, Any]) -> ConfigT:
    """Return a config dataclass from its JSON object; what the object lacks takes its default."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(content) - set(hints))
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no {', '.join(unknown)}; "
            "the run comes from another version of this program"
        )
    return kind(**{name: _value_of(hints[name], value) for name, value in content.items()})


def _value_of(hint: Any, value: Any) -> Any:
    """Return a JSON value as the type that a dataclass field asks for."""
    if value is None:
        return None
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_of(hint, value)
    if hint is Path:
        return Path(value)
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    return value


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder, then make it the run's only checkpoint; return it.

    A kill leaves the older checkpoint, or both, never half of one: a folder gets its name when it
    is whole.
    """
    root = folder / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    draft, final = root / "unfinished", root / f"step_{step:08d}"
    if final.exists():
        return final
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        write(draft)
        for path in draft.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        error.add_note(
            f"No checkpoint of step {step}. Free some disk, then go on with --resume {folder}"
        )
        raise
    draft.replace(final)
    for older in checkpoints(folder)[:-1]:
        shutil.rmtree(older)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, the oldest first."""
    return sorted((folder / "checkpoints").glob("step_*"))


def last_checkpoint(folder: Path) -> Path:
    """Return the newest whole checkpoint of a run.

    Raises:
        FileNotFoundError: the run was stopped before it wrote one.
    """
    found = checkpoints(folder)
    if not found:
        raise FileNotFoundError(
            f"{folder} has no checkpoint yet; remove the folder and start the run again"
        )
    return found[-1]


def passed(begin: int, end: int, period: int) -> bool:
    """Return whether a multiple of `period` lies in (begin, end].

    >>> passed(95, 100, 50), passed(100, 149, 50)
    (True, False)
    """
    return begin // period != end // period


def provenance() -> dict[str, Any]:
    """Return where a result comes from: commit, machine and versions."""
    return {"commit": commit(), "machine": machine(), "versions": installed_versions()}


def commit(clone: Path = Path(__file__).parents[1]) -> str:
    """Return the commit of a clone, "+" behind it when code differs; or "unknown".

    Results that were just measured, and the README made of them, are no difference.
    """
    name = _git(clone, "rev-parse", "--short=12", "HEAD")
    measured = (":!benchmarks/results", ":!README.md")
    changed = _git(clone, "status", "--porcelain", "--untracked-files=no", "--", ".", *measured)
    return f"{name}+" if name and changed else name or "unknown"


def _git(clone: Path, *arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    answer = subprocess.run(  # noqa: S603
        [git, *arguments], cwd=clone, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""


def machine() -> dict[str, Any]:
    """Return what the machine is: processor, cores that this process may use, accelerator."""
    import torch  # noqa: PLC0415

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "system": platform.system(),
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
