"""Chooses the off-screen OpenGL that MuJoCo draws with."""

import ctypes
import functools
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

from vlp_gym.errors import RenderingError

logger = logging.getLogger(__name__)

BACKENDS = ("egl", "osmesa")
"""Off-screen backends of MuJoCo on Linux, the faster one first."""

ADVICE = (
    "MuJoCo cannot draw off screen on this machine: neither EGL nor OSMesa opened a context. "
    "On Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri (EGL), or: apt-get install libosmesa6 (OSMesa)"
)

_PROBE = (
    "import mujoco\n"
    "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>')\n"
    "renderer = mujoco.Renderer(model, 8, 8)\n"
    "renderer.render()\n"
    "renderer.close()\n"
)


def opens(backend: str) -> bool:
    """Return whether MuJoCo can draw with `backend`, tried in a process of its own (a failed try can crash)."""
    env = {**os.environ, "MUJOCO_GL": backend}
    env.pop("PYOPENGL_PLATFORM", None)
    probe = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _PROBE],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if probe.returncode:
        logger.debug("MuJoCo cannot draw with %s: %s", backend, probe.stderr.strip())
    return probe.returncode == 0


@functools.cache
def load_triton_first() -> None:
    """Load Triton's library, where it is installed, before any OpenGL driver.

    Mesa's software driver makes its LLVM visible to all libraries loaded after it. Triton, which torch imports as
    late as the first optimiser, would be bound to that LLVM instead of its own and crash the process.
    """
    triton = importlib.util.find_spec("triton")
    for folder in [] if triton is None else triton.submodule_search_locations or []:
        library = Path(folder, "_C", "libtriton.so")
        if library.exists():
            ctypes.CDLL(str(library))


def prepare_opengl() -> None:
    """Set `MUJOCO_GL` to a backend that works, unless the user chose one; before or after `import mujoco`.

    Call it before a context is opened; `Renderer` does. Only a Linux machine without a display gets a new setting.

    Raises:
        RenderingError: no backend works.
    """
    load_triton_first()
    if (
        os.environ.get("MUJOCO_GL")
        or os.environ.get("DISPLAY")
        or not sys.platform.startswith("linux")
    ):
        return
    backend = next(filter(opens, BACKENDS), None)
    if backend is None:
        raise RenderingError(ADVICE)
    os.environ["MUJOCO_GL"] = backend
    logger.info("drawing off screen with MUJOCO_GL=%s", backend)
    if "mujoco" in sys.modules:
        # MuJoCo reads the variable once, when it is imported; an env of the user's own may have done that already.
        importlib.reload(sys.modules["mujoco.gl_context"])
