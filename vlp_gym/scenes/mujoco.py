"""Snapshot, restore and draw for any MuJoCo env of Gymnasium, Meta-World's included."""

import copy
import sys
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlp_gym.errors import RenderingError
from vlp_gym.scenes.renderer import FREE, Renderer, camera_id, quality_of
from vlp_gym.types import Frames

TRACK = "track"
"""Name that Gymnasium's models give to the camera that follows the robot."""
ALWAYS = ("body_pos", "site_pos")
"""Arrays that Meta-World writes at every reset to move its objects; kept with every episode."""
WHEN_CHANGED = (
    "body_quat",
    "geom_pos",
    "geom_quat",
    "geom_rgba",
    "geom_size",
    "site_quat",
    "site_rgba",
)
"""Arrays that an env of your own may write at reset; kept where they differ from the compiled model."""
CONSTANTS = ALWAYS + WHEN_CHANGED


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


class MujocoScene:
    """Draws recorded states of one MuJoCo env on a twin of its model, on demand.

    A snapshot is qpos and the mocap poses: about 200 bytes for Meta-World. What the env wrote into the model at
    reset travels once an episode, as `constants`; without it objects are drawn centimetres off.

    Args:
        model: the env's compiled `MjModel`; it is copied and never changed.
        camera: name of a camera of the model, or "free".
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
    """

    def __init__(
        self,
        model: Any,
        camera: str = "free",
        height: int = 224,
        width: int = 224,
        preset: str = "fast",
    ) -> None:
        import mujoco  # noqa: PLC0415

        self._mujoco = mujoco
        self._model = copy.copy(model)
        self._as_compiled = {name: getattr(model, name).copy() for name in CONSTANTS}
        self._data = mujoco.MjData(self._model)
        self._settings = (camera, height, width, preset)
        self._renderer: Renderer | None = None
        camera_id(self._model, camera)  # a wrong name is refused now, not at the first frame
        quality_of(preset)

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
        model = env.unwrapped.model  # type: ignore[attr-defined]
        return {
            name: getattr(model, name).copy()
            for name in CONSTANTS
            if name in ALWAYS or not np.array_equal(getattr(model, name), self._as_compiled[name])
        }

    def snapshot(self, env: gym.Env[Any, Any]) -> NDArray[np.float64]:
        """Return qpos, mocap positions and mocap quaternions as one array [state]."""
        data = env.unwrapped.data  # type: ignore[attr-defined]
        return np.concatenate([data.qpos, data.mocap_pos.ravel(), data.mocap_quat.ravel()])

    def restore(self, constants: dict[str, NDArray[Any]], snapshot: NDArray[np.float64]) -> Any:
        """Put the twin into a recorded state and return its `MjData`, positions up to date."""
        for name in CONSTANTS:
            getattr(self._model, name)[:] = constants.get(name, self._as_compiled[name])
        self._write(snapshot)
        return self._data

    def _write(self, snapshot: NDArray[np.float64]) -> None:
        nq, n_mocap = self._model.nq, self._model.nmocap
        expected = nq + 7 * n_mocap
        if snapshot.shape != (expected,):
            raise ValueError(
                f"this scene's snapshots have {expected} numbers, got shape {snapshot.shape}"
            )
        qpos, mocap_pos, mocap_quat = np.split(snapshot, [nq, nq + 3 * n_mocap])
        self._data.qpos[:] = qpos
        self._data.mocap_pos[:] = mocap_pos.reshape(n_mocap, 3)
        self._data.mocap_quat[:] = mocap_quat.reshape(n_mocap, 4)
        # All that a picture needs of mj_forward: bodies, centres of mass (tracking cameras), cameras, lights, tendons.
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)
        self._mujoco.mj_tendon(self._model, self._data)

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[np.float64]) -> Frames:
        """Draw snapshots [frames, state] of one episode, uint8 [frames, height, width, 3], upright."""
        if self._renderer is None:
            # The context is opened late: a forked worker that inherits one crashes.
            camera, height, width, preset = self._settings
            self._renderer = Renderer(self._model, camera, height, width, preset)
        frames = [self._renderer.draw(self.restore(constants, snapshot)) for snapshot in snapshots]
        return np.stack(frames)

    def close(self) -> None:
        """Free the renderer; the next `draw` opens a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
