"""Collected data: levels that differ, seeds that decide, files that survive."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlp_gym.data.trajectories import FORMAT, Trajectories
from vlp_gym.errors import CheckpointError, SettingError, UnknownNameError
from vlp_gym.tasks.metaworld import TASKS
from vlp_gym.training.behaviours import BEHAVIOURS, LEVELS
from vlp_gym.training.collect import EPISODES, CollectConfig, collect, collect_task

FEW = {"expert": 1, "mixture": 1}


@pytest.mark.parametrize("task_name", TASKS)
def test_expert_medium_and_random_differ(task_name: str) -> None:
    data = collect_task(task_name, {"expert": 3, "medium": 2, "random": 1}, 150, seed=5)
    succeeds = {level: data.success[data.of_behaviour(level)].any(1).mean() for level in LEVELS}
    paid = {level: data.env_reward[data.of_behaviour(level)].mean() for level in LEVELS}
    assert paid["expert"] > max(paid["random"], 0.9 * paid["medium"])
    assert succeeds["expert"] > 0 or paid["expert"] > 1.5 * paid["medium"]
    assert succeeds["medium"] <= 0.5
    assert succeeds["random"] == 0.0
    # Medium follows the script for a while, random never does: they part from the expert later.
    assert _way(data, "medium") != _way(data, "random")


def _way(data: Trajectories, level: str) -> float:
    hand = data.obs[data.of_behaviour(level)][..., :3]
    return float(np.linalg.norm(hand[:, -1] - hand[:, 0], axis=-1).mean())


def test_one_seed_gives_one_data_set() -> None:
    first, second = (collect_task("DoorOpen", FEW, 30, seed=3) for _ in range(2))
    other = collect_task("DoorOpen", FEW, 30, seed=4)
    np.testing.assert_array_equal(first.snapshots, second.snapshots)
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()


def test_an_episode_does_not_depend_on_what_is_collected_beside_it() -> None:
    alone = collect_task("DoorOpen", {"mixture": 1}, 30, seed=3)
    beside = collect_task("DoorOpen", {"wander": 2, "mixture": 1}, 30, seed=3)
    np.testing.assert_array_equal(alone.action[0], beside.action[2])


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_behaviour_acts_within_the_box_and_moves(behaviour: str) -> None:
    data = collect_task("DrawerOpen", {behaviour: 1}, 40, seed=0)
    assert np.abs(data.action).max() <= 1.0
    assert np.ptp(data.obs[0, :, :3], axis=0).max() > 0.005


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut off": lambda whole: whole[:2_000],
    "its last byte is missing": lambda whole: whole[:-1],
    "its beginning is missing": lambda whole: whole[2_000:],
    "a hole in its middle": lambda whole: whole[:2_000] + bytes(500) + whole[2_500:],
    "no list of files": lambda whole: whole.replace(b"PK\1\2", b"PK\0\0", 1),
    "no archive": lambda whole: b"not a file of ours",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_collected_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = CollectConfig(
        out=tmp_path, tasks=("DoorOpen",), episodes={"random": 1}, n_steps=20, workers=1
    )
    path = collect(settings) / "DoorOpen.npz"
    whole = path.read_bytes()
    assert len(whole) > 4_000
    path.write_bytes(DAMAGE[damage](whole))
    with pytest.raises(CheckpointError, match="collect it again"):
        Trajectories.load(path)
    collect(settings)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is damaged; its task is collected again"
    ]
    assert path.read_bytes() == whole


def test_only_the_damaged_file_is_collected_again(tmp_path: Path) -> None:
    settings = CollectConfig(
        out=tmp_path, tasks=("Reach", "DoorOpen"), episodes={"random": 1}, n_steps=20, workers=1
    )
    collect(settings)
    written = (tmp_path / "Reach.npz").stat().st_mtime_ns
    (tmp_path / "DoorOpen.npz").write_bytes(b"")
    collect(settings)
    assert (tmp_path / "Reach.npz").stat().st_mtime_ns == written
    assert Trajectories.load(tmp_path / "DoorOpen.npz").n_steps == 20


def test_a_file_of_a_newer_format_is_not_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "Reach.npz", format=np.array(FORMAT + 1))
    newer = (tmp_path / "Reach.npz").read_bytes()
    with pytest.raises(CheckpointError, match="upgrade"):
        collect(CollectConfig(out=tmp_path, tasks=("Reach",), n_steps=5, workers=1))
    assert (tmp_path / "Reach.npz").read_bytes() == newer and not caplog.records


def test_a_task_that_is_named_twice_is_collected_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[str] = []

    def counted(task_name: str, *settings: Any) -> Trajectories:
        collected.append(task_name)
        return collect_task(task_name, *settings)

    monkeypatch.setattr("vlp_gym.training.collect.collect_task", counted)
    twice = ("Reach", "reach-v3", "Reach")
    collect(CollectConfig(out=tmp_path, tasks=twice, episodes={"random": 1}, n_steps=5, workers=1))
    assert collected == ["Reach"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_steps": 0}, {"n_steps": -5}, {"workers": 0}, {"workers": -1}, {"seed": -1}, {"episodes": {}},
        {"episodes": {"random": 0}}, {"episodes": {"random": -1}}, {"episodes": {"expert": 1, "random": 0}},
    ],
)  # fmt: skip
def test_a_data_set_of_nothing_is_refused_before_there_is_a_folder(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    with pytest.raises(SettingError):
        collect(CollectConfig(out=out, tasks=("DoorOpen",), **wrong))
    assert not out.exists()


def test_collecting_again_keeps_what_is_there_and_adds_what_is_missing(tmp_path: Path) -> None:
    def config(*tasks: str) -> CollectConfig:
        return CollectConfig(
            out=tmp_path, tasks=tasks, episodes={"random": 1}, n_steps=20, workers=1
        )

    collect(config("Reach"))
    written = (tmp_path / "Reach.npz").stat().st_mtime_ns
    collect(config("Reach", "Push"))
    assert (tmp_path / "Reach.npz").stat().st_mtime_ns == written
    assert Trajectories.load(tmp_path / "Push.npz").n_steps == 20
    assert json.loads((tmp_path / "config.json").read_text())["n_steps"] == 20


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    collect(
        CollectConfig(out=tmp_path, tasks=("Reach",), episodes={"random": 1}, n_steps=20, workers=1)
    )
    with pytest.raises(CheckpointError, match="other settings"):
        collect(
            CollectConfig(
                out=tmp_path, tasks=("Reach",), episodes={"random": 2}, n_steps=20, workers=1
            )
        )


def test_trajectories_come_back_as_they_were(tmp_path: Path) -> None:
    data = collect_task("DoorOpen", FEW, 20, seed=0)
    data.save(tmp_path / "d.npz")
    loaded = Trajectories.load(tmp_path / "d.npz")
    assert loaded.behaviour == data.behaviour and loaded.task_name == "DoorOpen"
    np.testing.assert_array_equal(loaded.snapshots, data.snapshots)
    np.testing.assert_array_equal(loaded.constants["body_pos"], data.constants["body_pos"])
    assert loaded.fingerprint() == data.fingerprint()


def test_a_half_written_file_is_refused(tmp_path: Path) -> None:
    collect_task("Reach", {"random": 1}, 10, seed=0).save(tmp_path / "d.npz")
    path = tmp_path / "d.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="collect it again"):
        Trajectories.load(path)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="vlp collect"):
        Trajectories.load(tmp_path / "d.npz")


def test_the_papers_data_set_has_32_trajectories_of_three_levels() -> None:
    assert EPISODES["mtvlp"] == dict.fromkeys(LEVELS, 32)
    assert set(EPISODES["graded"]) == set(BEHAVIOURS)


def test_kind_and_seed_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EPISODES, "mtvlp", {"random": 1})
    made = collect(CollectConfig(kind="mtvlp", tasks=("Reach",), n_steps=5, seed=3, workers=1))
    assert made == Path("data/mtvlp-3") and (tmp_path / made / "Reach.npz").exists()


def test_an_unknown_behaviour_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="wander"):
        collect(CollectConfig(out=tmp_path / "new", episodes={"wandering": 1}))
    assert not (tmp_path / "new").exists()
