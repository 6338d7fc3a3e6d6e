"""Envs that can only draw themselves."""

import numpy as np
import pytest

from tests.helpers import ToyReach
from vlp_gym.errors import RenderingError, UnknownNameError
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.eager import EagerScene


def test_the_frame_is_what_the_env_draws() -> None:
    env = ToyReach(render_mode="rgb_array")
    env.reset(seed=0)
    scene = EagerScene(env, 16, 16)
    frame = scene.draw(scene.constants(env), scene.snapshot(env)[None])[0]
    assert np.array_equal(frame, env.render())


def test_a_picture_of_another_size_is_resized_and_keeps_its_colours() -> None:
    env = ToyReach(render_mode="rgb_array")
    env.reset(seed=0)
    scene = EagerScene(env, 8, 8)
    snapshot = scene.snapshot(env)
    assert snapshot.nbytes == 8 * 8 * 3
    frame = scene.draw({}, snapshot[None])[0]
    assert frame[..., 0].max() >= 63  # a quarter of the red pixel is left in the mean of four


def test_an_env_that_was_not_made_to_draw_is_refused_with_the_remedy() -> None:
    with pytest.raises(RenderingError, match="render_mode='rgb_array'"):
        scene_of(ToyReach())


def test_an_env_that_draws_nothing_is_refused_at_the_first_picture() -> None:
    class Blind(ToyReach):
        def render(self) -> None:
            return None

    with pytest.raises(RenderingError, match="must return uint8"):
        EagerScene(Blind(render_mode="rgb_array")).snapshot(Blind())


def test_a_camera_makes_sense_for_mujoco_only() -> None:
    with pytest.raises(UnknownNameError, match="only MuJoCo envs have cameras"):
        scene_of(ToyReach(render_mode="rgb_array"), camera="corner")
