"""A data set of five tasks, trained on in seconds: fixtures and settings of the tests of training."""

import dataclasses
from pathlib import Path

import pytest

from tests.tiny_vlp import SIZE_PX, tiny_config
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import SPLITS, Split
from vlp_gym.training.batches import BatchConfig
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.jitter import STILL
from vlp_gym.training.objective import LossConfig
from vlp_gym.types import View

TRAIN, TEST = ("DoorOpen", "DrawerOpen", "WindowClose"), ("DoorClose", "DrawerClose")
EPISODES = {"expert": 1, "medium": 1, "random": 1, "correlated": 2, "mixture": 2}
GRID = FrameGrid(stride=8)
SENTENCES = {name: instructions(name) for name in (*TRAIN, *TEST)}


@pytest.fixture(scope="module", name="data")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    settings = CollectConfig(
        out=folder, tasks=TRAIN + TEST, episodes=EPISODES, n_steps=60, workers=1
    )
    return collect(settings)


@pytest.fixture(scope="module", name="cache")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPLITS, "tiny", Split(TRAIN, TEST))


def config(data: Path, cache: Path, out: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        data=(data,), out=out, cache=cache, split="tiny", undoing=False, model=tiny_config(),
        view=View("corner4", SIZE_PX), grid=GRID, jitter=STILL, steps=6,
        batch=BatchConfig(tasks=3, windows=3, match_tasks=3), loss=LossConfig(strangers=1),
        warmup_steps=1, device="cpu", workers=1, checkpoint_every=2,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]
