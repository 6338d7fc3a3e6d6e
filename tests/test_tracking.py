"""Logging to trackers."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agents.tracking import make_logger
from vlp_gym.errors import MissingExtraError


class Recording(ModuleType):
    """Takes the calls of a tracker and writes them down."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> None:
        self.calls.append(("init", settings))

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append(("log", (step, numbers)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_every_number_and_its_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Recording(name)
    monkeypatch.setitem(sys.modules, name, package)
    logger = make_logger(tmp_path / "run", name, {"seed": 3})
    logger.record("vlp/success", np.float32(0.5))
    logger.record("vlp/queries", 7)
    logger.record("note", "no number")
    logger.dump(120)
    logger.close()
    (_, settings), (_, logged), (last, _) = package.calls
    assert settings["name"] == "run" and settings["config"] == {"seed": 3}
    assert logged == (120, {"vlp/success": 0.5, "vlp/queries": 7.0})
    assert last == "finish"
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_without_a_tracker_there_is_tensorboard(tmp_path: Path) -> None:
    logger = make_logger(tmp_path / "run", None, {})
    logger.record("a", 1.0)
    logger.dump(1)
    logger.close()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"\.\[track\]"):
        make_logger(tmp_path / "run", "wandb", {})
