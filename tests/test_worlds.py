"""Learning from a reward of VLM-RM's shape, with a scripted eye in the network's place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import worlds
from benchmarks.schema import read_records
from benchmarks.scripted_towers import ScriptedTowers
from vlp_gym.tasks.vlmrm import find_world


def test_the_scripted_eye_sees_how_upright_a_pole_is() -> None:
    env = worlds.make_env(find_world("CartPole"), 200)
    core: Any = env.unwrapped
    assert env.get_wrapper_attr("name") == "vlmrm:stand-in:scripted-cartpole"
    for angle in np.linspace(-2.4, 2.4, 7):  # further down the picture ends
        env.reset(seed=0)
        core.state = np.array([0.5, 0.0, angle, 0.0])
        _, reward, *_ = env.step(0)
        assert reward == pytest.approx(np.cos(core.state[2]), abs=0.06)
    env.close()


def test_the_scripted_eye_sees_how_high_a_car_is() -> None:
    env = worlds.make_env(find_world("MountainCar"), 200)
    rewards = []
    for place in (-0.5, -0.3, -0.1, 0.1, 0.3, 0.44):
        env.reset(seed=0)
        env.unwrapped.state = np.array([place, 0.0])  # type: ignore[attr-defined]
        rewards.append(env.step(np.zeros(1, np.float32))[1])
    assert np.all(np.diff(rewards) > 0.04) and rewards[0] < 0.1 and rewards[-1] > 0.9
    env.close()
    with pytest.raises(ValueError, match="no scripted eye"):
        ScriptedTowers(find_world("HumanoidKneel"))


def test_runs_are_kept_and_say_that_no_network_paid(tmp_path: Path) -> None:
    config = worlds.Config(
        steps={"CartPole": 400, "MountainCar": 400},
        evaluate_every=400,
        evaluation_episodes=1,
        runs=tmp_path / "runs",
        results=tmp_path,
        quiet=True,
    )
    worlds.compare(config)
    records = read_records("worlds", tmp_path)
    assert [record.task for record in records] == ["CartPole", "MountainCar"]
    assert records[0].method == "reward of vlmrm:stand-in:scripted-cartpole"
    assert records[0].metrics["return after"] <= 200
    assert worlds.compare(config) == records  # none is run again
    with pytest.raises(ValueError, match="other settings"):
        worlds.compare(replace(config, steps={"CartPole": 600}))
