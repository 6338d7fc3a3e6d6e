"""The worlds of VLM-RM: CartPole, MountainCar and Humanoid that go on until their time is up.

What VLM-RM's own code did otherwise, and what is right here: a success of one episode is none of the next, the end of
the time truncates and does not terminate, and the frame of the last step is not that of the next reset.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.spaces import Box
from jaxtyping import UInt8
from numpy.typing import NDArray

from vlp_gym.errors import RenderingError
from vlp_gym.scenes.classic import ClassicScene
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.vlmrm import World

PICTURE_PX = 480
"""Side of the humanoid's pictures."""
CAMERA = "vlmrm"
"""Name of the camera that VLM-RM looks at the humanoid with."""


class CartPole(CartPoleEnv):
    """CartPole in which a fallen pole goes on swinging; success at a step is a pole that stands.

    Gymnasium's physics; the angle is told between -pi and pi, and the cart stays on the track.

    Args:
        render_mode: "rgb_array" or None; pictures are our own, see `ClassicScene`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(self, render_mode: str | None = None) -> None:
        _check_mode(render_mode)
        super().__init__(render_mode=render_mode)
        high = np.array([self.x_threshold, np.inf, np.pi, np.inf], np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart to the left (0) or right (1); the reward is 1 while the pole stands."""
        self.steps_beyond_terminated = None
        physics: Any = super()  # of Gymnasium, without types
        _, _, has_fallen, _, info = physics.step(action)
        x, speed, angle, turning = np.asarray(self.state)
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        self.state = np.array(
            [np.clip(x, -self.x_threshold, self.x_threshold), speed, angle, turning]
        )
        info["success"] = not has_fallen
        return self.state.astype(np.float32), float(not has_fallen), False, False, info

    def make_scene(self, height: int | None, width: int | None) -> ClassicScene:
        """Return what draws this env from its states."""
        return ClassicScene("cartpole", height, width)

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return a picture of the present state, 400 x 600, or None without a render mode."""
        return _picture(self)


class MountainCar(Continuous_MountainCarEnv):
    """MountainCarContinuous in which the car stays at the flag once it is there; that is success.

    Args:
        render_mode: "rgb_array" or None; pictures are our own, see `ClassicScene`.
        textured: whether the mountain has textures.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode: str | None = None, textured: bool = True) -> None:
        _check_mode(render_mode)
        super().__init__(render_mode=render_mode)
        self._textured, self._is_there = textured, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in the valley, without the success of the one before."""
        self._is_there = False
        obs, info = super().reset(seed=seed, options=options)
        return obs, info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Accelerate, -1 to 1; the reward is Gymnasium's, its bonus paid once."""
        was_there = self._is_there
        _, reward, has_arrived, _, info = super().step(action)
        bonus = 100.0 if has_arrived else 0.0  # what Gymnasium pays for every step at the flag
        self._is_there |= bool(self.state[0] >= self.goal_position)
        if self._is_there:
            self.state = np.array([max(self.state[0], self.goal_position), 0.0], np.float32)
        paid = float(reward) - bonus + (100.0 if self._is_there and not was_there else 0.0)
        info["success"] = self._is_there
        return np.asarray(self.state, np.float32), paid, False, False, info

    def make_scene(self, height: int | None, width: int | None) -> ClassicScene:
        """Return what draws this env from its states."""
        return ClassicScene("mountain-car", height, width, self._textured)

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return a picture of the present state, 400 x 600, or None without a render mode."""
        return _picture(self)


def make_humanoid(render_mode: str | None = None, textured: bool = True) -> gym.Env[Any, Any]:
    """Return Gymnasium's Humanoid-v5 that may lie down, with VLM-RM's camera, and textures of our own.

    VLM-RM had Humanoid-v4, whose observations have constant numbers that v5 leaves out. Its camera looks at (0, 0, 1)
    from 3.5 m in front, ten degrees from above, and does not move.

    Args:
        render_mode: "rgb_array" or None.
        textured: whether sky, floor and robot have other textures than Gymnasium's.
    """
    _check_mode(render_mode)
    from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        path = Path(folder) / "humanoid.xml"
        path.write_text(humanoid_xml(textured))
        env = HumanoidEnv(
            str(path),
            terminate_when_unhealthy=False,
            render_mode=render_mode,
            width=PICTURE_PX,
            height=PICTURE_PX,
        )
    return Humanoid(env)


class Humanoid(gym.Wrapper[Any, Any, Any, Any]):
    """Draws itself with VLM-RM's camera and a renderer of our own; Gymnasium's mixes up two models in one process."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._scene = MujocoScene.of(
            env, CAMERA, height=PICTURE_PX, width=PICTURE_PX, preset="exact"
        )

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return a picture of the present state, 480 x 480, or None without a render mode."""
        if self.render_mode is None:
            return None
        frames = self._scene.draw(self._scene.constants(self), self._scene.snapshot(self)[None])
        return np.asarray(frames[0])

    def close(self) -> None:
        """Free the renderer and the simulator."""
        self._scene.close()
        super().close()


def humanoid_xml(textured: bool = True) -> str:
    """Return Gymnasium's humanoid with VLM-RM's camera; `textured`: with a sky, a tiled floor and a pale robot."""
    from gymnasium.envs import mujoco as gymnasium_mujoco  # noqa: PLC0415

    assets = Path(gymnasium_mujoco.__file__).parent / "assets"
    root = ElementTree.parse(assets / "humanoid.xml").getroot()  # noqa: S314  (Gymnasium's own file)
    world = root.find("worldbody")
    assert world is not None
    # From 3.5 m, azimuth 180 and elevation -10 degrees, at (0, 0, 1).
    place = {"pos": "3.4468 0 1.6078", "xyaxes": "0 1 0 -0.1736 0 0.9848"}
    ElementTree.SubElement(world, "camera", {"name": CAMERA, "mode": "fixed", **place})
    if textured:
        _dress(root)
    return ElementTree.tostring(root, encoding="unicode")


def _dress(root: ElementTree.Element) -> None:
    """Give sky, floor and robot textures that MuJoCo makes by itself, and one strong light."""
    looks = {
        "skybox": {"rgb1": "0.55 0.75 0.95", "rgb2": "0.9 0.95 1"},
        "texplane": {
            "rgb1": "0.72 0.7 0.66",
            "rgb2": "0.6 0.58 0.54",
            "mark": "edge",
            "markrgb": "0.4 0.38 0.35",
        },
        "texgeom": {
            "rgb1": "0.92 0.92 0.94",
            "rgb2": "0.85 0.86 0.9",
            "mark": "random",
            "markrgb": "0.45 0.47 0.5",
        },
    }
    for texture in root.iter("texture"):
        name = texture.get("name") or texture.get("type") or ""
        texture.attrib.update(looks.get(name, {}))
    for geom in root.iter("geom"):
        if geom.get("rgba") is not None:
            geom.set("rgba", "1 1 1 1")
    for light in root.iter("light"):
        light.attrib.update({"diffuse": "1.2 1.2 1.2", "specular": "0.3 0.3 0.3"})


def make_bare(
    world: World, render_mode: str | None = None, textured: bool = True
) -> gym.Env[Any, Any]:
    """Return a world, paid by its simulator.

    Raises:
        RenderingError: another render mode than "rgb_array".
    """
    if world.kind == "cartpole":
        return CartPole(render_mode)
    if world.kind == "mountain-car":
        return MountainCar(render_mode, textured)
    return make_humanoid(render_mode, textured)


def _check_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise RenderingError(
            f"render_mode {render_mode!r} is not supported; use 'rgb_array', and gymnasium.wrappers.HumanRendering "
            "around the env for a window"
        )


def _picture(env: Any) -> UInt8[np.ndarray, "height width 3"] | None:
    if env.render_mode is None:
        return None
    scene = env.make_scene(None, None)
    return np.asarray(scene.draw({}, scene.snapshot(env)[None])[0])
