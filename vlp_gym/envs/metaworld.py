"""A Meta-World task that behaves as Gymnasium promises."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float32, UInt8

from vlp_gym.errors import RenderingError
from vlp_gym.scenes.metaworld import make_sawyer, observation_space, seed_sawyer
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA

PICTURE_PX = 480
"""Side of `render()`'s pictures unless asked otherwise; Meta-World's own default."""

Obs = Float32[np.ndarray, " obs"]
Action = Float[np.ndarray, " action"]


class MetaworldEnv(gym.Env[Obs, Action]):
    """One task of Meta-World v3, paid by Meta-World's own reward.

    It holds the Sawyer env instead of being one, so that nothing of the latter's surprises shows:

    - `reset(seed=)` decides goal and objects; Meta-World ignores it.
    - Observations are float32 and always inside `observation_space`, after a reset too.
    - Spaces are its own: Meta-World seeds its action space with every episode, a user's sampling stays untouched.
    - Only a time limit ends an episode; Meta-World raises at step 501.
    - `info["success"]` and `info["is_success"]` (what Stable-Baselines3 reads) are bool.
    - `render()` draws upright and with a renderer of our own; Gymnasium's mixes up two models in one process.

    Args:
        task: name of the task, in any spelling that `find_task` reads.
        render_mode: "rgb_array", or None for an env that is never looked at.
        camera: name of the camera of `render()`.
        height: height of a picture in pixels.
        width: width of a picture in pixels.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.

    Raises:
        UnknownNameError: no such task, camera or preset.
        RenderingError: another render mode; there is no window to draw to.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        camera: str = DEFAULT_CAMERA,
        height: int = PICTURE_PX,
        width: int = PICTURE_PX,
        preset: str = "fast",
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise RenderingError(
                f"render_mode {render_mode!r} is not supported; use 'rgb_array', and "
                "gymnasium.wrappers.HumanRendering around the env for a window"
            )
        self.render_mode = render_mode
        self.sawyer = make_sawyer(task)
        """The bare env of Meta-World."""
        inner = observation_space()
        self._low, self._high = inner.low.astype(np.float32), inner.high.astype(np.float32)
        self.observation_space = Box(self._low, self._high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (4,), dtype=np.float32)
        self._scene = MujocoScene.of(self, camera, height=height, width=width, preset=preset)

    @property
    def model(self) -> Any:
        """The compiled `MjModel`."""
        return self.sawyer.model

    @property
    def data(self) -> Any:
        """The state of the simulation, an `MjData`."""
        return self.sawyer.data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode; `seed` decides its goal and objects, and those of the next ones."""
        super().reset(seed=seed)
        if seed is not None:
            seed_sawyer(self.sawyer, seed)
        obs, info = self.sawyer.reset(options=options)
        return self._inside(obs), info

    def step(self, action: Action) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Apply an action in [-1, 1]: gripper movement (3) and closing (1)."""
        obs, reward, terminated, truncated, info = self.sawyer.step(action)
        success = bool(info["success"])
        info = {**info, "success": success, "is_success": success}
        return self._inside(obs), float(reward), terminated, truncated, info

    def _inside(self, obs: Float[np.ndarray, " obs"]) -> Obs:
        return np.clip(obs.astype(np.float32), self._low, self._high)

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return an upright picture of the present state, or None without a render mode."""
        if self.render_mode is None:
            return None
        frames = self._scene.draw(self._scene.constants(self), self._scene.snapshot(self)[None])
        return np.asarray(frames[0])

    def close(self) -> None:
        """Free the renderer and the simulator."""
        self._scene.close()
        self.sawyer.close()
