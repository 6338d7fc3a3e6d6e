"""Scenes of Gymnasium's own MuJoCo envs, and of envs that change their model."""

import copy
import subprocess
import sys
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from vlp_gym.errors import RenderingError
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.mujoco import MujocoScene, default_camera, is_mujoco
from vlp_gym.scenes.renderer import FREE, Renderer

SIZE_PX = 48

UPSIDE_DOWN = """
<mujoco>
  <worldbody>
    <camera name="upright" pos="0 -4 0" xyaxes="1 0 0 0 0 1"/>
    <camera name="upside_down" pos="0 -4 0" xyaxes="-1 0 0 0 0 -1"/>
    <light pos="0 -4 0" dir="0 1 0"/>
    <geom name="red" size=".3" pos="-.5 0 .5" rgba="1 0 0 1"/>
    <geom name="blue" size=".3" pos=".5 0 -.5" rgba="0 0 1 1"/>
  </worldbody>
</mujoco>
"""


class Painted(gym.Env):
    """An env of one's own that changes a ball's colour, another's place and the camera's at every reset."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(UPSIDE_DOWN)
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.model.geom("red").rgba[:3] = self.np_random.uniform(0, 1, 3)
        self.model.geom("blue").pos[:] = self.np_random.uniform(-0.5, 0.5, 3)
        self.model.camera("upright").pos[:] += self.np_random.uniform(-0.2, 0.2, 3)
        mujoco.mj_forward(self.model, self.data)
        return np.zeros(0), {}


def live_picture(env: Any, camera: str) -> np.ndarray:
    model = copy.copy(env.unwrapped.model)
    with Renderer(model, camera, SIZE_PX, SIZE_PX) as renderer:
        return renderer.draw(env.unwrapped.data)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Reacher-v5", "InvertedPendulum-v5"])
def test_a_frame_of_gymnasiums_own_envs_is_the_live_frame(env_id: str) -> None:
    env = gym.make(env_id)
    env.action_space.seed(0)
    env.reset(seed=0)
    twin = gym.make(env_id)
    twin.reset(seed=1)
    scene = scene_of(twin, size_px=SIZE_PX)
    constants = scene.constants(env)
    for _ in range(5):
        env.step(env.action_space.sample())
    mujoco.mj_forward(env.unwrapped.model, env.unwrapped.data)
    frame = scene.draw(constants, scene.snapshot(env)[None])[0]
    assert np.array_equal(frame, live_picture(env, default_camera(env)))


def test_colours_places_and_cameras_that_an_env_changes_at_reset_travel_with_the_episode() -> None:
    env = Painted()
    scene = MujocoScene.of(env, "upright", height=SIZE_PX, width=SIZE_PX)
    recorded = []
    for seed in (1, 2):
        env.reset(seed=seed)
        recorded.append((scene.constants(env), scene.snapshot(env), live_picture(env, "upright")))
    for constants, snapshot, expected in recorded:
        assert np.array_equal(scene.draw(constants, snapshot[None])[0], expected)
    assert not np.array_equal(recorded[0][2], recorded[1][2])


def test_a_camera_that_hangs_upside_down_is_turned_and_left_stays_left() -> None:
    model = mujoco.MjModel.from_xml_string(UPSIDE_DOWN)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    pictures = []
    for camera in ("upright", "upside_down"):
        with Renderer(model, camera, SIZE_PX, SIZE_PX) as renderer:
            pictures.append(renderer.draw(data).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2  # edges round otherwise
    red = np.argwhere(pictures[1][..., 0] > 60).mean(0)
    assert (red < SIZE_PX / 2).all()  # upper left


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_threads_draw_the_same_frames_in_the_same_order(n_frames: int) -> None:
    env = gym.make("HalfCheetah-v5")
    env.action_space.seed(0)
    env.reset(seed=0)
    one, three = (scene_of(env, size_px=SIZE_PX, threads=threads) for threads in (1, 3))
    snapshots = []
    for _ in range(n_frames):
        env.step(env.action_space.sample())
        snapshots.append(one.snapshot(env))
    expected = one.draw(one.constants(env), np.array(snapshots))
    for _ in range(2):  # the second time with new contexts
        assert np.array_equal(three.draw(three.constants(env), np.array(snapshots)), expected)
        three.close()


def test_an_error_in_a_drawing_thread_is_raised_and_the_scene_goes_on() -> None:
    env = Painted()
    env.reset(seed=0)
    scene = MujocoScene.of(env, "upright", height=SIZE_PX, width=SIZE_PX, threads=2)
    snapshots = np.repeat(scene.snapshot(env)[None], 2, axis=0)
    constants = scene.constants(env)
    with pytest.raises(ValueError, match="numbers"):
        scene.draw(constants, np.zeros((2, 3)))
    assert len(scene.draw(constants, snapshots)) == 2


def test_a_scene_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="1 thread or more"):
        MujocoScene.of(Painted(), threads=0)


def test_a_model_without_cameras_is_drawn_with_the_free_one() -> None:
    assert default_camera(Painted()) == FREE
    assert default_camera(gym.make("HalfCheetah-v5")) == "track"


def test_an_env_that_merely_has_a_model_is_not_mujocos() -> None:
    env = gym.make("CartPole-v1")
    env.unwrapped.model, env.unwrapped.data = "a model", "data"
    assert not is_mujoco(env)
    with pytest.raises(RenderingError, match="EagerScene"):
        MujocoScene.of(env)


def run_python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    import os

    env = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env | settings,
        capture_output=True,
        text=True,
        check=False,
    )


DRAW = """
from vlp_gym.scenes.mujoco import MujocoScene
from tests.test_scenes_mujoco import Painted
env = Painted()
env.reset(seed=0)
scene = MujocoScene.of(env, "upright", height=8, width=8)
scene.draw(scene.constants(env), scene.snapshot(env)[None])
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_drawing_needs_no_setting_and_a_script_that_closes_nothing_ends_quietly(
    threads: int,
) -> None:
    several = f"width=8, threads={threads})"
    twice = DRAW.replace("width=8)", several).replace("[None])", "[None].repeat(2, 0))")
    finished = run_python("import mujoco\n" + twice)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""


def test_torch_can_be_imported_after_drawing() -> None:
    """Triton, which torch's optimisers import, crashed after Mesa's software driver."""
    finished = run_python(
        DRAW + "import torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
    )
    assert finished.returncode == 0, finished.stderr


def test_a_machine_without_opengl_is_told_what_to_install() -> None:
    finished = run_python(
        "from vlp_gym.scenes import opengl\nopengl.opens = lambda backend: False\n" + DRAW,
        DISPLAY="",
    )
    assert finished.returncode == 1
    assert "RenderingError" in finished.stderr
    assert "apt-get install libegl1" in finished.stderr


def test_a_backend_of_the_users_choice_that_fails_is_named() -> None:
    finished = run_python(DRAW, MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID="99")
    assert finished.returncode == 1
    assert "RenderingError" in finished.stderr
