"""Offline runs: a kill costs nothing, bad input is refused before anything is written, files say what was done."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import cpl, offline, run
from agents.evaluation import Evaluation, evaluate
from agents.parallel_evaluation import Judge, WithoutLastGripper, fitted
from tests.tiny_offline import make_comparisons, make_trajectories, write_pairs
from vlp_gym.errors import DataError
from vlp_gym.feedback.state_file import load_state


def tiny_run(folder: Path, out: str, **options: Any) -> cpl.Config:
    data, pairs = folder / "ButtonPress.npz", folder / "ButtonPress.labels.parquet"
    if not pairs.exists():
        write_pairs(folder)
    settings: dict[str, Any] = {
        "pairs": pairs, "trajectories": data, "seeds": (2, 0), "steps": 8, "bc_steps": 3, "warmup_steps": 2,
        "batch_size": 4, "hidden": (8, 8), "evaluate_every": 3, "checkpoint_every": 4, "evaluation_episodes": 2,
        "max_episode_steps": 6, "video_episodes": 0, "device": "cpu", "threads": 1, "quiet": True,
        "out": folder / out,
    }  # fmt: skip
    return cpl.Config(**{**settings, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> cpl.Config:
    config = tiny_run(
        tmp_path_factory.mktemp("offline"), "whole", video_episodes=1, video_size_px=64
    )
    offline.learn(config, cpl.make)
    return config


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def curve_of(folder: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((folder / "curve.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_end(first: Path, second: Path) -> None:
    states = [load_state(run.last_checkpoint(each) / "state.npz") for each in (first, second)]
    np.testing.assert_equal(states[0]["learner"], states[1]["learner"])
    assert curve_of(first) == curve_of(second)


def test_a_run_leaves_all_that_it_promises(whole: cpl.Config) -> None:
    assert whole.out is not None
    names = {path.name for path in whole.out.iterdir()}
    files = "config.json curve.csv curve.png result.json final-seed0.mp4 final-seed2.mp4"
    assert names == {*files.split(), "checkpoints", "tensorboard"}
    assert {path.name for path in (whole.out / "tensorboard").iterdir()} == {"seed0", "seed2"}
    rows = curve_of(whole.out)
    assert [(row["step"], row["seed"]) for row in rows] == [
        (step, seed) for step in ("0", "3", "6", "8") for seed in ("2", "0")
    ]
    assert all(float(row["bc_loss"]) > 0 for row in rows[2:])
    assert [bool(row["cpl_loss"]) for row in rows] == [False] * 4 + [True] * 4
    result = json.loads((whole.out / "result.json").read_text())
    assert (result["task"], result["method"], result["seeds"]) == ("ButtonPress", "CPL", [2, 0])
    assert len(result["env_return"]["per_seed"]) == 2
    assert {"commit", "machine", "versions", "fingerprint"} <= set(result)


def test_a_stopped_run_ends_as_one_that_was_never_stopped(
    whole: cpl.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.out is not None
    config = replace(whole, out=tmp_path / "run", video_episodes=0)
    save = run.save_checkpoint

    def save_and_stop(*args: Any) -> Path:
        save(*args)
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(run, "save_checkpoint", save_and_stop)
        with pytest.raises(Killed):
            offline.learn(config, cpl.make)
    assert run.last_checkpoint(tmp_path / "run").name == "step_00000004"
    torch.manual_seed(99)
    np.random.seed(99)
    offline.go_on(tmp_path / "run", cpl.Config, cpl.make)
    assert_same_end(whole.out, tmp_path / "run")


def test_a_killed_process_leaves_a_run_that_goes_on(whole: cpl.Config, tmp_path: Path) -> None:
    assert whole.out is not None
    command = [
        sys.executable, "-m", "agents.cpl", "--pairs", str(whole.pairs), "--seeds", "2", "0", "--steps", "8",
        "--bc-steps", "3", "--warmup-steps", "2", "--batch-size", "4", "--hidden", "8", "8", "--evaluate-every", "3",
        "--checkpoint-every", "4", "--evaluation-episodes", "2", "--max-episode-steps", "6", "--video-episodes", "0",
        "--device", "cpu", "--threads", "1", "--quiet", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(cpl.__file__).parents[1])
    give_up = time.monotonic() + 120
    while (
        not run.checkpoints(tmp_path / "run")
        and process.poll() is None
        and time.monotonic() < give_up
    ):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    offline.go_on(tmp_path / "run", cpl.Config, cpl.make)
    assert_same_end(whole.out, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "DoorClose"}, "of ButtonPress, and the policy is to be evaluated in DoorClose"),
        ({"seeds": (1, 1)}, "several different ones"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"bias": 0.0}, "bias"),
        ({"variant": "cpl-kl", "bc_steps": 0}, "needs a cloned policy"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        offline.learn(tiny_run(tmp_path, "run", **change), cpl.make)
    assert not (tmp_path / "run").exists()


def test_pairs_of_other_trajectories_are_refused_before_training(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "run")
    make_trajectories(seed=8).save(tmp_path / "ButtonPress.npz")
    with pytest.raises(DataError, match="cut from another data set"):
        offline.learn(config, cpl.make)
    assert not (tmp_path / "run").exists()


def test_an_unknown_layout_is_refused_before_training(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "run", task="ButtonPress")
    with pytest.raises(DataError, match="have 5 numbers; those of Meta-World have 39, or 35"):
        offline.learn(
            config, lambda config: cpl.CPL(config, make_comparisons(obs_dim=5, action_dim=4))
        )
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_user_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents.piql", "--pairs", str(tmp_path / "none.parquet")]
    done = subprocess.run(
        command, cwd=Path(cpl.__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be read as a label table" in done.stderr
    assert "Traceback" not in done.stderr


def test_episodes_side_by_side_are_those_one_after_the_other() -> None:
    import gymnasium as gym

    judge = Judge("DrawerClose", 39, episodes=3, max_episode_steps=20, parallel="sync")
    weights = np.random.default_rng(0).normal(size=(39, 4)) * 3

    def batch_policy(obs: Any) -> Any:
        return np.tanh(obs @ weights).astype(np.float32)

    env = gym.make("vlp/DrawerClose", labeler=None, reward="env", max_episode_steps=20)
    for seed in (4, 5):
        found = judge(batch_policy, seed)
        expected = evaluate(lambda obs: batch_policy(obs[None])[0], env, 3, seed)
        assert isinstance(found, Evaluation)
        assert found.success == expected.success
        assert found.final_success == expected.final_success
        assert found.env_return == pytest.approx(expected.env_return, rel=1e-6)
    judge.close()


def test_cpls_layout_leaves_the_last_gripper_out() -> None:
    import gymnasium as gym

    env = gym.make("vlp/ButtonPress", labeler=None, reward="env")
    plain, _ = env.reset(seed=0)
    wrapped = fitted(env, 35)
    assert isinstance(wrapped, WithoutLastGripper)
    obs, _ = wrapped.reset(seed=0)
    np.testing.assert_array_equal(obs, np.concatenate([plain[:18], plain[22:]]))
    assert wrapped.observation_space.contains(obs)
    assert fitted(env, 39) is env
