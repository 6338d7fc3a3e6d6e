"""Snapshot, restore and draw for any MuJoCo env of Gymnasium, Meta-World's included."""

import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlp_gym.errors import RenderingError
from vlp_gym.scenes.renderer import FREE
from vlp_gym.scenes.twin import Look, Twin
from vlp_gym.types import Frames

TRACK = "track"
"""Name that Gymnasium's models give to the camera that follows the robot."""


def is_mujoco(env: gym.Env[Any, Any]) -> bool:
    """Return whether an env simulates with MuJoCo in the way of Gymnasium's: it has `model` and `data`."""
    mujoco = sys.modules.get("mujoco")  # an env that simulates with it has imported it
    model = getattr(env.unwrapped, "model", None)
    return (
        mujoco is not None and isinstance(model, mujoco.MjModel) and hasattr(env.unwrapped, "data")
    )


def default_camera(env: gym.Env[Any, Any]) -> str:
    """Return the camera that Gymnasium draws a MuJoCo env with: "track" if it has that, else "free"."""
    import mujoco  # noqa: PLC0415

    model = env.unwrapped.model  # type: ignore[attr-defined]
    has_track = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, TRACK) >= 0
    return TRACK if has_track else FREE


def world_of(model: Any) -> str:
    """Return a hash of what a compiled model is made of; where a reset puts things does not count."""
    content = blake2b(bytes(model.names), digest_size=8)
    for name in ("geom_type", "geom_bodyid", "mesh_vert", "mat_texid", "cam_fovy"):
        content.update(np.ascontiguousarray(getattr(model, name)).tobytes())
    return content.hexdigest()


class MujocoScene:
    """Draws recorded states of one MuJoCo env on twins of its model, on demand.

    A snapshot is qpos and the mocap poses: about 200 bytes for Meta-World. What the env wrote into the model at
    reset travels once an episode, as `constants`; without it objects are drawn centimetres off.

    Args:
        model: the env's compiled `MjModel`; it is copied and never changed.
        camera: name of a camera of the model, or "free".
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
        threads: how many frames are drawn side by side, each on a twin of its own; the pictures are the same.
    """

    def __init__(
        self,
        model: Any,
        camera: str = "free",
        height: int = 224,
        width: int = 224,
        preset: str = "fast",
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ValueError(f"a scene draws in 1 thread or more, got {threads}")
        look = Look(camera, height, width, preset)
        self._twin, *self._others = [Twin(model, look) for _ in range(threads)]
        self._threads: list[ThreadPoolExecutor] = []
        self._world: str = world_of(model)
        self._look = look

    @property
    def identity(self) -> str:
        """What is drawn and how, apart from the states: the hash of the world, camera, size and preset."""
        camera, height, width, preset = self._look
        return f"mujoco {self._world} {camera} {height}x{width} {preset}"

    @classmethod
    def of(cls, env: gym.Env[Any, Any], camera: str = "free", **settings: Any) -> "MujocoScene":
        """Return the scene of a MuJoCo env; `settings` as in the constructor.

        Raises:
            RenderingError: the env is not a MuJoCo env.
        """
        if not is_mujoco(env):
            raise RenderingError(
                f"{env.unwrapped} has no MuJoCo model and data; use EagerScene for it"
            )
        return cls(env.unwrapped.model, camera, **settings)  # type: ignore[attr-defined]

    def constants(self, env: gym.Env[Any, Any]) -> dict[str, NDArray[Any]]:
        """Return the model arrays that this episode's frames depend on, by name."""
        return self._twin.changed(env.unwrapped.model)  # type: ignore[attr-defined]

    def snapshot(self, env: gym.Env[Any, Any]) -> NDArray[np.float64]:
        """Return qpos, mocap positions and mocap quaternions as one array [state]."""
        data = env.unwrapped.data  # type: ignore[attr-defined]
        return np.concatenate([data.qpos, data.mocap_pos.ravel(), data.mocap_quat.ravel()])

    def restore(self, constants: dict[str, NDArray[Any]], snapshot: NDArray[np.float64]) -> Any:
        """Put the twin into a recorded state and return its `MjData`, positions up to date."""
        return self._twin.restore(constants, snapshot)

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[np.float64]) -> Frames:
        """Draw snapshots [frames, state] of one episode, uint8 [frames, height, width, 3], upright."""
        if self._others and not self._threads:
            # An OpenGL context belongs to one thread, so each of the other twins keeps to its own.
            self._threads = [ThreadPoolExecutor(1, "drawing") for _ in self._others]
        mine, *rest = np.array_split(snapshots, max(1, min(1 + len(self._others), len(snapshots))))
        # MuJoCo lets go of Python's lock while it draws.
        waiting = [
            thread.submit(twin.draw, constants, part)
            for thread, twin, part in zip(self._threads, self._others, rest, strict=False)
        ]
        frames = [self._twin.draw(constants, mine), *(part.result() for part in waiting)]
        return np.concatenate(frames)

    def close(self) -> None:
        """Free the renderers; the next `draw` opens new ones."""
        self._twin.close()
        for thread, twin in zip(self._threads, self._others, strict=False):
            thread.submit(twin.close).result()
            thread.shutdown()
        self._threads = []
