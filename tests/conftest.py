"""One thread a process, and an off-screen OpenGL that is looked for once."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from vlp_gym.scenes.opengl import prepare_opengl

prepare_opengl()
