"""Scenes: small snapshots of a simulator, and frames drawn from them on demand."""

from typing import Any

import gymnasium as gym

from vlp_gym.errors import UnknownNameError
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.types import Scene


def scene_of(
    env: gym.Env[Any, Any],
    camera: str | None = None,
    size_px: int = 224,
    preset: str = "fast",
    threads: int = 1,
) -> Scene:
    """Return the scene that draws an env in square frames: lazily for MuJoCo, eagerly for any other.

    Args:
        env: a Gymnasium env; one without MuJoCo must be made with `render_mode="rgb_array"`.
        camera: name of a camera of a MuJoCo model; None takes `DEFAULT_CAMERA` for Meta-World and for others what
            Gymnasium draws them with.
        size_px: side of a frame in pixels.
        preset: drawing quality of a MuJoCo scene, see `vlp_gym.scenes.renderer.PRESETS`.
        threads: how many frames a MuJoCo scene draws side by side.

    Raises:
        RenderingError: the env cannot draw.
        UnknownNameError: no such camera or preset.
    """
    from vlp_gym.scenes.eager import EagerScene  # noqa: PLC0415
    from vlp_gym.scenes.metaworld import is_metaworld  # noqa: PLC0415
    from vlp_gym.scenes.mujoco import MujocoScene, default_camera, is_mujoco  # noqa: PLC0415

    if is_mujoco(env):
        camera = camera or (DEFAULT_CAMERA if is_metaworld(env) else default_camera(env))
        return MujocoScene.of(
            env, camera, height=size_px, width=size_px, preset=preset, threads=threads
        )
    if camera is not None:
        raise UnknownNameError(
            f"camera {camera!r}: only MuJoCo envs have cameras with names; {env} draws itself, "
            "so choose its view when you make it and leave `camera` out"
        )
    return EagerScene(env, height=size_px, width=size_px)
