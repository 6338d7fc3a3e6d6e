"""Frames of a data set: drawn once from its snapshots, cached beside it, read through a memory map."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from vlp_gym.atomic import atomic_path
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scenes.renderer import camera_id
from vlp_gym.training.jitter import STILL, Jitter
from vlp_gym.types import View

FrameArray = UInt8[np.ndarray, "episodes frames height width 3"]


@dataclass(frozen=True)
class FrameGrid:
    """Which steps of an episode are drawn: every `stride`-th, from an offset that differs by episode.

    Windows of 50 steps then start at every drawn frame and share their pictures.
    """

    stride: int = 16
    """Steps between frames: 4 frames span 49 steps, as in a segment of 50."""

    def n_frames(self, n_steps: int) -> int:
        """Return how many frames an episode of `n_steps` has; some steps are kept free for the offset."""
        return max(1, (n_steps - self.stride // 2) // self.stride)

    def steps(
        self, n_steps: int, seeds: Int[np.ndarray, " episodes"]
    ) -> Int[np.ndarray, "episodes frames"]:
        """Return the drawn steps of every episode.

        >>> FrameGrid(stride=16).steps(150, np.array([0, 5])).tolist()[1][:3]
        [5, 21, 37]
        """
        grid = self.stride * np.arange(self.n_frames(n_steps))
        offset = seeds % (n_steps - grid[-1])
        return np.asarray(offset[:, None] + grid)


def cached_frames(
    data: Trajectories, view: View, grid: FrameGrid, folder: Path, jitter: Jitter = STILL
) -> FrameArray:
    """Return the frames of all episodes as a read-only memory map, drawing them first if need be."""
    path = _frames_file(data, view, grid, folder, jitter)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        steps = grid.steps(data.n_steps, data.seed)
        with atomic_path(path) as temporary:
            np.save(temporary, _draw(data, view, steps, jitter))
    frames: FrameArray = np.load(path, mmap_mode="r")
    return frames


def draw_data_set(
    paths: Sequence[Path],
    view: View,
    grid: FrameGrid,
    folder: Path,
    workers: int,
    jitter: Jitter = STILL,
) -> None:
    """Draw the frames of many files of trajectories in parallel; those in the cache are kept.

    Raises:
        CheckpointError: trajectories that are missing or damaged.
    """
    jobs = [
        (path, view, grid, folder, jitter)
        for path in paths
        if not _frames_file(Trajectories.load(path), view, grid, folder, jitter).exists()
    ]
    if not jobs:
        return
    # Every process draws in an OpenGL context of its own, which a forked one could not.
    from multiprocessing import get_context  # noqa: PLC0415

    with ProcessPoolExecutor(max(workers, 1), mp_context=get_context("spawn")) as pool:
        list(tqdm(pool.map(_draw_job, jobs), total=len(jobs), desc="drawn files", disable=None))


def _draw_job(job: tuple[Path, View, FrameGrid, Path, Jitter]) -> None:
    path, view, grid, folder, jitter = job
    cached_frames(Trajectories.load(path), view, grid, folder, jitter)


def _draw(
    data: Trajectories, view: View, steps: Int[np.ndarray, "episodes frames"], jitter: Jitter
) -> FrameArray:
    env = make_sawyer(data.task_name)
    scene = metaworld_scene(env, view.camera, view.size_px, view.preset)
    frames = np.empty((*steps.shape, view.size_px, view.size_px, 3), np.uint8)
    for i in range(len(data)):
        episode = data.episode(i)
        snapshots = episode.snapshots[steps[i]]
        if jitter.is_still:
            frames[i] = scene.draw(episode.constants, snapshots)
            continue
        jolt = jitter.of_episode(int(data.seed[i]))
        camera = jolt.camera(env.model, camera_id(env.model, view.camera))
        frames[i] = jolt.tinted(scene.draw({**episode.constants, **camera}, snapshots))
    scene.close()
    return frames


def _frames_file(
    data: Trajectories, view: View, grid: FrameGrid, folder: Path, jitter: Jitter
) -> Path:
    parts = [data.fingerprint(), asdict(view), asdict(grid)]
    parts += [] if jitter.is_still else [asdict(jitter)]
    what = json.dumps(parts, sort_keys=True)
    key = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    return folder / f"{data.task_name}-{key}.npy"
