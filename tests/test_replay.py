"""Replays of learning agents: whole, true to the env, and how a preference model judges them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from agents import replay
from agents.sac import SacConfig
from benchmarks import replay_agreement
from benchmarks.schema import write_records
from vlp_gym.data.replay import Replay
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.scenes.metaworld import make_sawyer, seed_sawyer
from vlp_gym.tasks.splits import SPLITS, Split


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("replay")
    return replay.main(
        replay.Config(("DoorClose",), steps=120, max_episode_steps=60, out=out, quiet=True)
    )


def test_every_step_of_every_episode_is_kept(folder: Path) -> None:
    data = Trajectories.load(folder / "DoorClose.npz")
    assert (len(data), data.n_steps) == (2, 60)
    assert set(data.behaviour) == {"sac"}
    assert len(set(data.seed)) == 2
    assert np.abs(data.action).max() <= 1
    for row in range(2):  # the simulator, given these seeds and actions, does it again
        Replay(data).last_obs(row)
        episode = data.episode(row)
        assert episode.snapshots.shape[0] == 60
        assert set(episode.constants) == set(data.constants)


def test_a_replay_on_disk_is_kept(folder: Path, tmp_path: Path) -> None:
    before = (folder / "DoorClose.npz").read_bytes()
    same = replay.Config(("DoorClose",), steps=120, max_episode_steps=60, out=folder)
    replay.main(same)
    assert (folder / "DoorClose.npz").read_bytes() == before
    with pytest.raises(ValueError, match="other settings"):
        replay.main(dataclasses.replace(same, sac=SacConfig(width=32)))
    (tmp_path / "DoorClose.npz").write_bytes(before)
    with pytest.raises(ValueError, match="unknown settings"):
        replay.main(dataclasses.replace(same, out=tmp_path))


def test_episodes_of_all_ages_are_kept(folder: Path, tmp_path: Path) -> None:
    every = Trajectories.load(folder / "DoorClose.npz")
    few = replay.Config(
        ("DoorClose",), steps=120, max_episode_steps=60, keep=1, out=tmp_path, quiet=True
    )
    kept = Trajectories.load(replay.main(few) / "DoorClose.npz")
    np.testing.assert_array_equal(kept.seed, every.seed[:1])
    np.testing.assert_array_equal(kept.action, every.action[:1])
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        replay.Config(("DoorClose",), keep=0)


def test_an_agent_on_a_learned_reward_is_kept_with_the_simulators(tmp_path: Path) -> None:
    feedback = FeedbackConfig(8, queries_per_session=8, session_every=60, segment_length=20)
    config = replay.Config(
        ("DoorClose",), steps=120, max_episode_steps=60, reward="learned", feedback=feedback,
        sac=SacConfig(learning_starts=20, batch_size=8), out=tmp_path, device="cpu", quiet=True,
    )  # fmt: skip
    data = Trajectories.load(replay.main(config) / "DoorClose.npz")
    sawyer = make_sawyer("DoorClose")
    for row in range(2):
        seed_sawyer(sawyer, int(data.seed[row]))
        sawyer.reset()
        again = [sawyer.step(action)[1] for action in data.action[row]]
        np.testing.assert_allclose(data.env_reward[row], again, rtol=1e-4, atol=1e-4)


def test_an_episode_is_never_cut_off() -> None:
    with pytest.raises(ValueError, match="multiple"):
        replay.Config(("DoorClose",), steps=100, max_episode_steps=60)
    with pytest.raises(ValueError, match="name a task"):
        replay.Config(())


def test_labels_of_replays_are_compared_with_the_return_at_every_age(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPLITS, "tiny", Split(("DoorOpen",), ("DoorClose",)))
    config = replay_agreement.Config(
        (60, 120), n_pairs=16, segment_length=20, max_episode_steps=60, split="tiny", out=folder,
        device="cpu", results=tmp_path,
    )  # fmt: skip
    replay_agreement.measure(config)
    records = json.loads((tmp_path / "replay_agreement.json").read_text())["records"]
    assert [(r["task"], r["method"]) for r in records] == [
        ("DoorClose", "SAC, 60 steps"),
        ("DoorClose", "SAC, 120 steps"),
        ("mean", "SAC, 60 steps"),
        ("mean", "SAC, 120 steps"),
    ]
    assert all(0 <= share <= 1 for r in records for share in r["metrics"].values())
    assert records[0]["metrics"] == records[2]["metrics"]


def test_ages_and_tasks_may_be_measured_in_parts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPLITS, "tiny", Split(("DoorOpen",), ("DoorClose", "WindowOpen")))
    config = replay_agreement.Config(
        (120,), n_pairs=16, segment_length=20, max_episode_steps=60, split="tiny", out=folder,
        device="cpu", tasks=("DoorClose",), results=tmp_path,
    )  # fmt: skip
    alone = replay_agreement.measure(config)
    assert [(r.task, r.method) for r in alone] == [("DoorClose", "SAC, 120 steps")]
    of_the_other = dataclasses.replace(
        alone[0], task="WindowOpen", metrics={"vs return": 1, "larger gaps": 0}
    )
    old = dataclasses.replace(of_the_other, method="SAC, 60 steps", scale="of before")
    write_records("replay_agreement", [old, of_the_other], tmp_path)
    both = replay_agreement.measure(config)
    assert [r.task for r in both] == ["DoorClose", "WindowOpen", "mean"]
    assert both[-1].metrics == {
        "vs return": (alone[0].metrics["vs return"] + 1) / 2,
        "larger gaps": alone[0].metrics["larger gaps"] / 2,
    }
    another = [dataclasses.replace(each, seed=1) for each in both[:2]]
    assert len(replay_agreement.means_of([*both[:2], *another], 2)) == 2
    assert dataclasses.replace(config, checkpoint="runs/mine").scale != config.scale
    with pytest.raises(ValueError, match="tasks must be of DoorClose, WindowOpen; got DoorOpen"):
        dataclasses.replace(config, tasks=("DoorOpen",))


def test_an_agent_is_not_older_than_its_replay(folder: Path) -> None:
    data = Trajectories.load(folder / "DoorClose.npz")
    with pytest.raises(ValueError, match="has 120 steps, an age of 180 was asked for"):
        replay_agreement.agreement_at(180, data, replay_agreement.Config())
