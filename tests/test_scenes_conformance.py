"""What every scene promises."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.helpers import ToyReach
from tests.sawyer import make_seeded
from vlp_gym.scenes import scene_of
from vlp_gym.types import Scene

SIZE_PX = 16

ENVS: dict[str, Callable[[], gym.Env]] = {
    "metaworld": lambda: make_seeded("Reach"),
    "mujoco": lambda: gym.make("Reacher-v5"),
    "eager": lambda: ToyReach(render_mode="rgb_array"),
}

Case = tuple[Scene, dict[str, Any], np.ndarray, gym.Env]


@pytest.fixture(params=ENVS)
def case(request: pytest.FixtureRequest) -> Case:
    """Return a scene, and the constants and snapshots of five steps."""
    env = ENVS[request.param]()
    scene = scene_of(env, size_px=SIZE_PX)
    env.action_space.seed(0)
    env.reset(seed=0)
    constants, snapshots = scene.constants(env), []
    for _ in range(5):
        env.step(env.action_space.sample())
        snapshots.append(scene.snapshot(env))
    return scene, constants, np.stack(snapshots), env


def test_it_is_a_scene(case: Case) -> None:
    assert isinstance(case[0], Scene)


def test_frames_are_uint8_pictures_one_a_snapshot(case: Case) -> None:
    scene, constants, snapshots, _ = case
    assert snapshots.ndim == 2
    frames = scene.draw(constants, snapshots)
    assert frames.shape == (5, SIZE_PX, SIZE_PX, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 0


def test_the_order_of_drawing_does_not_matter(case: Case) -> None:
    scene, constants, snapshots, _ = case
    backwards = scene.draw(constants, snapshots[::-1])
    assert np.array_equal(scene.draw(constants, snapshots), backwards[::-1])


def test_what_was_recorded_stays_when_the_env_goes_on(case: Case) -> None:
    scene, constants, snapshots, env = case
    last = scene.snapshot(env)
    kept = {name: array.copy() for name, array in constants.items()}, last.copy()
    env.reset(seed=1)
    env.step(env.action_space.sample())
    assert np.array_equal(last, kept[1])
    for name, array in constants.items():
        assert np.array_equal(array, kept[0][name])


def test_closing_twice_is_no_error(case: Case) -> None:
    case[0].close()
    case[0].close()
