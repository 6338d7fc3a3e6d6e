"""Scenes: small snapshots of a simulator, and frames drawn from them on demand."""

from typing import Any

import gymnasium as gym

from vlp_gym.errors import UnknownNameError
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.types import Scene

DEFAULT_PX = 224
"""Side of a frame of a MuJoCo env unless asked otherwise."""


def scene_of(
    env: gym.Env[Any, Any],
    camera: str | None = None,
    size_px: int | tuple[int, int] | None = 224,
    preset: str = "fast",
    threads: int = 1,
) -> Scene:
    """Return the scene that draws an env: lazily for MuJoCo and what makes a scene of its own, else eagerly.

    Args:
        env: a Gymnasium env; one without MuJoCo must be made with `render_mode="rgb_array"`.
        camera: name of a camera of a MuJoCo model; None takes `DEFAULT_CAMERA` for Meta-World and for others what
            Gymnasium draws them with.
        size_px: side of a frame in pixels, or its height and width; None leaves the size of an env that draws itself as
            it is.
        preset: drawing quality of a MuJoCo scene, see `vlp_gym.scenes.renderer.PRESETS`.
        threads: how many frames a MuJoCo scene draws side by side.

    Raises:
        RenderingError: the env cannot draw.
        UnknownNameError: no such camera or preset.
    """
    from vlp_gym.scenes.eager import EagerScene  # noqa: PLC0415
    from vlp_gym.scenes.metaworld import is_metaworld  # noqa: PLC0415
    from vlp_gym.scenes.mujoco import MujocoScene, default_camera, is_mujoco  # noqa: PLC0415

    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px or (None, None)
    if is_mujoco(env):
        height, width = height or DEFAULT_PX, width or DEFAULT_PX
        camera = camera or (DEFAULT_CAMERA if is_metaworld(env) else default_camera(env))
        return MujocoScene.of(
            env, camera, height=height, width=width, preset=preset, threads=threads
        )
    make_scene = getattr(env.unwrapped, "make_scene", None)
    if camera is None and make_scene is not None:
        drawn_from_states: Scene = make_scene(height, width)
        return drawn_from_states
    if camera is not None:
        raise UnknownNameError(
            f"camera {camera!r}: only MuJoCo envs have cameras with names; {env} draws itself, "
            "so choose its view when you make it and leave `camera` out"
        )
    return EagerScene(env, height=height, width=width)
