"""A copy of a MuJoCo model that is put into recorded states and drawn there."""

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlp_gym.scenes.renderer import Renderer, camera_id, quality_of
from vlp_gym.types import Frames

ALWAYS = ("body_pos", "site_pos")
"""Arrays that Meta-World writes at every reset to move its objects; kept with every episode."""
WHEN_CHANGED = (
    "body_quat",
    "cam_fovy",
    "cam_pos",
    "cam_quat",
    "geom_pos",
    "geom_quat",
    "geom_rgba",
    "geom_size",
    "site_quat",
    "site_rgba",
)
"""Arrays that an env of your own may write at reset; kept where they differ from the compiled model."""
CONSTANTS = ALWAYS + WHEN_CHANGED


class Look(NamedTuple):
    """How a twin is drawn: camera by name, size in pixels, and preset."""

    camera: str
    height: int
    width: int
    preset: str


class Twin:
    """Draws recorded states of one model on a copy of it.

    Args:
        model: the compiled `MjModel`; it is copied and never changed.
        look: how to draw.

    Raises:
        UnknownNameError: no such camera or preset.
    """

    def __init__(self, model: Any, look: Look) -> None:
        import mujoco  # noqa: PLC0415

        self._mujoco = mujoco
        self._model = copy.copy(model)
        self._as_compiled = {name: getattr(model, name).copy() for name in CONSTANTS}
        self._data = mujoco.MjData(self._model)
        self._look = look
        self._renderer: Renderer | None = None
        camera_id(self._model, look.camera)  # a wrong name is refused now, not at the first frame
        quality_of(look.preset)

    def changed(self, model: Any) -> dict[str, NDArray[Any]]:
        """Return copies of the arrays in which `model` may differ from the compiled one, by name."""
        return {
            name: getattr(model, name).copy()
            for name in CONSTANTS
            if name in ALWAYS or not np.array_equal(getattr(model, name), self._as_compiled[name])
        }

    def restore(self, constants: dict[str, NDArray[Any]], snapshot: NDArray[np.float64]) -> Any:
        """Put the copy into a recorded state and return its `MjData`, positions up to date."""
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
            self._renderer = Renderer(self._model, *self._look)
        frames = [self._renderer.draw(self.restore(constants, snapshot)) for snapshot in snapshots]
        return np.stack(frames)

    def close(self) -> None:
        """Free the renderer; the next `draw` opens a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
