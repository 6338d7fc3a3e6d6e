"""Draws one MuJoCo model off screen, upright, at a chosen quality."""

import atexit
import threading
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vlp_gym.errors import RenderingError, UnknownNameError
from vlp_gym.scenes.opengl import prepare_opengl

FREE = "free"
"""Name of MuJoCo's default view, for models without a camera of their own."""

_opening = threading.Lock()
_open_renderers: weakref.WeakSet["Renderer"] = weakref.WeakSet()


@dataclass(frozen=True)
class Preset:
    """Drawing quality; what each switch costs on a software rasteriser is in benchmarks/results/drawing.json."""

    multisamples: int
    """Samples a pixel against jagged edges; 0 switches it off."""
    shadows: bool
    reflections: bool
    textures: bool


PRESETS = {
    "exact": Preset(multisamples=4, shadows=True, reflections=True, textures=True),
    "fast": Preset(multisamples=0, shadows=False, reflections=False, textures=True),
    "draft": Preset(multisamples=0, shadows=False, reflections=False, textures=False),
}
"""`exact` is what the simulator shows, `fast` (for labels) drops what does not tell a task apart, `draft` is plain."""


class Renderer:
    """Draws states of one model with one camera.

    It owns its OpenGL context and makes it current before every frame, which Gymnasium's `env.render()` does
    not: there, two models in one process corrupt each other's frames.

    Args:
        model: the model to draw; a preset other than `exact` changes its `vis` settings, so pass a copy of your own.
        camera: name of a camera of the model, or "free" for MuJoCo's default view.
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        preset: a name in `PRESETS`.

    Raises:
        UnknownNameError: no such camera or preset.
        RenderingError: no off-screen OpenGL.
    """

    def __init__(
        self, model: Any, camera: str, height: int, width: int, preset: str = "fast"
    ) -> None:
        import mujoco  # noqa: PLC0415

        with _opening:
            prepare_opengl()
        self._camera = camera_id(model, camera)
        quality = quality_of(preset)
        model.vis.quality.offsamples = quality.multisamples
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        if not quality.shadows:
            model.vis.quality.shadowsize = 0  # saves 64 MB and a fifth of the time to open
        if not quality.textures:
            model.mat_texid[:] = -1
        try:
            with _opening:  # MuJoCo connects to the display with the first context, unguarded
                self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each backend raises its own kind
            raise RenderingError(
                f"MuJoCo cannot open an off-screen OpenGL context ({error}); set MUJOCO_GL=egl or MUJOCO_GL=osmesa "
                "and see `vlp doctor`"
            ) from error
        _open_renderers.add(self)
        # Moved to the end of the line: it must run before MuJoCo's own exit handler, which ends OpenGL
        # under contexts that are still open.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = quality.shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = quality.reflections

    def draw(self, data: Any) -> UInt8[np.ndarray, "height width 3"]:
        """Return an upright picture of `data`, whose positions must be up to date (`mj_forward`)."""
        self._renderer.update_scene(data, self._camera)
        frame: UInt8[np.ndarray, "height width 3"] = self._renderer.render()
        return turn_upright(frame) if self._is_upside_down(data) else frame

    def _is_upside_down(self, data: Any) -> bool:
        # The second column of a camera's rotation is its up vector; Meta-World's corner cameras point it down.
        return self._camera >= 0 and bool(data.cam_xmat[self._camera].reshape(3, 3)[2, 1] < -0.1)

    def close(self) -> None:
        """Free the OpenGL context."""
        _open_renderers.discard(self)
        self._renderer.close()

    def __enter__(self) -> "Renderer":
        """Return itself; the context is freed on exit."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the OpenGL context."""
        self.close()


def _close_all() -> None:
    for renderer in list(_open_renderers):
        renderer.close()


def camera_id(model: Any, camera: str) -> int:
    """Return MuJoCo's number of a camera of `model`, -1 for the free camera.

    Raises:
        UnknownNameError: no such camera.
    """
    import mujoco  # noqa: PLC0415

    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_CAMERA, i) for i in range(model.ncam)]
    if camera != FREE and camera not in names:
        raise UnknownNameError.of("camera", camera, [*names, FREE])
    return -1 if camera == FREE else names.index(camera)


def quality_of(preset: str) -> Preset:
    """Return the drawing quality of a preset's name.

    Raises:
        UnknownNameError: no such preset.
    """
    if preset not in PRESETS:
        raise UnknownNameError.of("drawing preset", preset, list(PRESETS))
    return PRESETS[preset]


def turn_upright(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Return the picture rotated by 180 degrees.

    A rotation, not a flip: left stays left, which "turn the faucet left" depends on.

    >>> turn_upright(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))[0, 0].tolist()
    [9, 10, 11]
    """
    return np.ascontiguousarray(frame[::-1, ::-1])
