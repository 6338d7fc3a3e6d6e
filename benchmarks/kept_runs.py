"""Runs in folders, as benchmarks keep them: gone on with, never run twice, never mixed up."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agents import run

ConfigT = TypeVar("ConfigT", bound=Any)


def finished(
    config: ConfigT,
    folder: Path,
    learn: Callable[[ConfigT], dict[str, Any]],
    go_on: Callable[[Path], dict[str, Any]],
    deciding: Callable[[ConfigT], ConfigT],
) -> dict[str, Any]:
    """Return the result of a run: of the one on disk, of one that goes on, or of a new one.

    Args:
        config: the run.
        folder: where it is kept.
        learn: does a new run.
        go_on: goes on with a stopped one.
        deciding: returns a config less what decides none of a run's numbers; its folder (`out`) is left out already.

    Raises:
        ValueError: the folder holds a run of other settings.
        BusyRunError: another process is at it.
    """
    if (folder / "result.json").exists():
        check_same(config, folder, deciding)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result
    folder.mkdir(parents=True, exist_ok=True)
    run.hold(folder)
    if run.checkpoints(folder):
        check_same(config, folder, deciding)
        return go_on(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return learn(config)


def check_same(config: ConfigT, folder: Path, deciding: Callable[[ConfigT], ConfigT]) -> None:
    """Refuse a run folder of other settings: its numbers would stand under the wrong name.

    Raises:
        ValueError: the folder holds another run.
    """
    there = deciding(run.read_config(folder, type(config)))
    if replace(there, out=None) != replace(deciding(config), out=None):
        raise ValueError(
            f"{folder} holds a run with other settings; remove it or name other --runs"
        )
