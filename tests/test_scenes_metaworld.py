"""What is drawn from a snapshot, on a twin, is what the live env shows."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.sawyer import PAPER_TEST_TASKS, make_seeded, random_actions, rollout
from vlp_gym.errors import UnknownNameError
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.scenes.renderer import PRESETS, Renderer
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, TASKS

SIZE_PX = 48


@contextmanager
def live_camera(env: Any, preset: str = "fast", camera: str = DEFAULT_CAMERA) -> Iterator[Any]:
    """Draw the simulator's own state, with nothing stored or restored."""
    # A copy, because a preset changes the model; positions of what is drawn are read from the data.
    model = copy.copy(env.unwrapped.model)
    with Renderer(model, camera, SIZE_PX, SIZE_PX, preset) as renderer:
        yield lambda: renderer.draw(env.unwrapped.data)


def twin_scene(task: str, preset: str = "fast", camera: str = DEFAULT_CAMERA) -> MujocoScene:
    """Return a scene of another instance, whose objects stand elsewhere."""
    twin = make_seeded(task)
    twin.reset(seed=99)
    return metaworld_scene(twin, camera, SIZE_PX, preset)


@pytest.mark.parametrize("task", TASKS)
def test_a_frame_from_a_snapshot_is_the_live_frame_pixel_for_pixel(task: str) -> None:
    env, scene = make_seeded(task), twin_scene(task)
    env.reset(seed=1)
    constants, snapshots, live = scene.constants(env), [], []
    with live_camera(env) as look:
        for seed in range(2):
            rollout(env, 25, seed)
            snapshots.append(scene.snapshot(env))
            live.append(look())
    frames = scene.draw(constants, np.stack(snapshots[::-1]))  # in any order
    scene.close()
    assert np.array_equal(frames, np.stack(live[::-1]))
    assert not np.array_equal(*live)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("camera", ["corner", "behindGripper"])
def test_presets_and_cameras_agree_with_the_live_env(preset: str, camera: str) -> None:
    env, scene = make_seeded("FaucetClose"), twin_scene("FaucetClose", preset, camera)
    env.reset(seed=1)
    rollout(env, 10)
    frames = scene.draw(scene.constants(env), scene.snapshot(env)[None])
    with live_camera(env, preset, camera) as look:
        assert np.array_equal(frames[0], look())


@pytest.mark.parametrize("camera", ["corner", "corner2", "corner3", "corner4", "behindGripper"])
def test_the_hand_is_drawn_above_the_table(camera: str) -> None:
    env = make_seeded("Reach")
    env.reset(seed=0)
    with upright_test_picture(env, camera) as picture:
        red, _, blue = np.moveaxis(picture.astype(float), -1, 0)
    rows = np.arange(SIZE_PX)
    hand_row = np.average(rows, weights=np.clip(red - blue, 0, None).sum(1))
    table_row = np.average(rows, weights=np.clip(blue - red, 0, None).sum(1))
    assert hand_row < table_row


@contextmanager
def upright_test_picture(env: Any, camera: str) -> Iterator[np.ndarray]:
    """Draw a red hand over a blue table, and nothing else."""
    model = copy.copy(env.unwrapped.model)
    model.geom_matid[:] = -1
    model.geom_rgba[:] = 0
    model.site_rgba[:] = 0
    body = {name: env.unwrapped.model.body(name).id for name in ("hand", "tablelink")}
    model.geom_rgba[model.geom_bodyid == body["hand"]] = [1, 0, 0, 1]
    model.geom_rgba[model.geom_bodyid == body["tablelink"]] = [0, 0, 1, 1]
    with Renderer(model, camera, SIZE_PX, SIZE_PX, "draft") as renderer:
        yield renderer.draw(env.unwrapped.data)


def test_without_the_constants_of_the_episode_objects_are_drawn_elsewhere() -> None:
    env, scene = make_seeded("ButtonPress"), twin_scene("ButtonPress")
    env.reset(seed=1)
    constants, snapshot = scene.constants(env), scene.snapshot(env)[None]
    env.reset(seed=2)
    assert not np.array_equal(
        scene.draw(constants, snapshot), scene.draw(scene.constants(env), snapshot)
    )


def test_a_stored_step_costs_at_most_400_bytes_beside_observation_and_action() -> None:
    env = make_sawyer("StickPull")  # the most that moves
    reward_and_success = 4 + 1
    assert metaworld_scene(env).snapshot(env).nbytes + reward_and_success <= 400


def test_two_models_in_one_process_leave_each_others_frames_alone() -> None:
    envs = [make_seeded(task) for task in ("ButtonPress", "DoorClose")]
    alone = []
    for env in envs:
        env.reset(seed=0)
        with live_camera(env) as look:
            alone.append(look())
    scenes = [metaworld_scene(env, size_px=SIZE_PX) for env in envs]
    for _ in range(2):
        for env, scene, expected in zip(envs, scenes, alone, strict=True):
            frames = scene.draw(scene.constants(env), scene.snapshot(env)[None])
            assert np.array_equal(frames[0], expected)


def test_a_closed_scene_opens_again_at_the_next_drawing() -> None:
    env = make_seeded("Reach")
    env.reset(seed=0)
    scene = metaworld_scene(env, size_px=SIZE_PX)
    constants, snapshots = scene.constants(env), scene.snapshot(env)[None]
    before = scene.draw(constants, snapshots)
    scene.close()
    assert np.array_equal(before, scene.draw(constants, snapshots))


def test_an_unknown_camera_is_answered_with_the_closest_before_anything_is_drawn() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'corner"):
        metaworld_scene(make_sawyer("Reach"), camera="corner9")


def test_an_unknown_preset_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fast'"):
        metaworld_scene(make_sawyer("Reach"), preset="fats")


def test_a_snapshot_of_another_task_is_refused() -> None:
    scene = metaworld_scene(make_sawyer("Reach"))
    with pytest.raises(ValueError, match="snapshots have"):
        scene.restore({}, np.zeros(3))


@pytest.mark.parametrize("task", PAPER_TEST_TASKS)
def test_drawing_does_not_touch_the_env(task: str) -> None:
    drawn, plain = make_seeded(task), make_seeded(task)
    drawn.reset(seed=0)
    plain.reset(seed=0)
    scene = metaworld_scene(drawn, size_px=SIZE_PX)
    for action in random_actions(10):
        obs, *_ = drawn.step(action)
        scene.draw(scene.constants(drawn), scene.snapshot(drawn)[None])
        assert np.array_equal(obs, plain.step(action)[0])
