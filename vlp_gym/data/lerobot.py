"""A data set as a LeRobotDataset v3.0: tables of steps, videos of what is seen before every action, their description.

Written without the `lerobot` library, whose releases pin an older torch and NumPy than ours. Every task has a table
and a video of its own, so that tasks can be written side by side.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from tqdm import tqdm

from vlp_gym.data.replay import MakeEnv, Replay
from vlp_gym.data.statistics import (
    LEVELS_OF_A_PIXEL,
    Histogram,
    histogram_of,
    pixel_statistics,
    statistics,
)
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import ExportError
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.types import View

VERSION = "v3.0"
STEPS_PER_SECOND = 80
"""Rate of Meta-World's control, and so of rows and frames."""

FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{FILE}.parquet", f"meta/episodes/{FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{FILE}.mp4"
TASKS, STATISTICS, INFO = "meta/tasks.parquet", "meta/stats.json", "meta/info.json"
FILES_A_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
"""What LeRobot itself keeps to when it adds to a data set; ours have fewer and smaller files."""

X264 = ("-crf", "18", "-g", "2", "-bf", "0")
"""Hardly a loss to see. Every other frame is a key frame, as in LeRobot's own videos: training reads single ones."""

_BODIES = [
    *("hand.x", "hand.y", "hand.z", "gripper"),
    *(f"object{i}.{axis}" for i in (1, 2) for axis in ("x", "y", "z", "q0", "q1", "q2", "q3")),
]
STATE = [*_BODIES, *(f"last.{name}" for name in _BODIES), "goal.x", "goal.y", "goal.z"]
"""Names of an observation's numbers: this step, the last one, the goal."""
ACTION = ["x", "y", "z", "gripper"]

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """One task of the data set, and where it stands there.

    Attributes:
        path: a `<Task>.npz` that `vlp collect` wrote.
        behaviours: only episodes of these; empty: all.
        task_name: its name.
        number: running number of the task's table and of its video.
        sentence: running number of the task's sentence; of two tasks that ask for the same the same.
        first_episode: running number of its first episode.
        first_step: running number of its first step.
    """

    path: Path
    behaviours: tuple[str, ...]
    task_name: str
    number: int
    sentence: int
    first_episode: int
    first_step: int

    def load(self) -> Trajectories:
        """Return its episodes."""
        return Trajectories.load(self.path).with_behaviours(*self.behaviours)


def write_lerobot(
    folder: Path,
    paths: Sequence[Path],
    behaviours: tuple[str, ...] = (),
    view: View | None = None,
    frames_per_second: int = STEPS_PER_SECOND,
    workers: int = 1,
    make_env: MakeEnv = make_sawyer,
) -> None:
    """Write a LeRobotDataset v3.0 into an existing folder; `meta/info.json` comes last.

    Features: `observation.state` [39], `action` [4] in [-1, 1], `next.reward` (the simulator's), `next.success`,
    `next.done` (at the last step of an episode), `behaviour`, and `observation.images.<camera>` if there is a view.
    The metadata of an episode names its `behaviour` and its `seed`, too. A row is what was before an action, the
    action, and what came of it.

    Args:
        folder: where to; empty.
        paths: one `<Task>.npz` a task.
        behaviours: only episodes of these; empty: all.
        view: how the videos are drawn; None: no videos.
        frames_per_second: what LeRobot is told of the rate of rows and frames.
        workers: processes that draw; each writes whole tasks.
        make_env: makes the simulator that a task's episodes were recorded in.

    Raises:
        CheckpointError: a file is missing or damaged, or its episodes do not repeat here.
        ExportError: no video of that size or rate.
        UnknownNameError: no such behaviour, camera or preset.
    """
    check_video(view, frames_per_second)
    parts, sentences = _parts(paths, behaviours)
    jobs = [(folder, part, view, frames_per_second, make_env) for part in parts]
    episodes: list[dict[str, Any]] = []
    pixels = np.zeros((3, LEVELS_OF_A_PIXEL), np.int64)
    for rows, histogram in tqdm(
        _write_parts(jobs, workers if view else 1),
        total=len(jobs),
        desc="exported tasks",
        disable=None,
    ):
        episodes += rows
        pixels += histogram
    _write_table(episodes, folder / EPISODES.format(chunk_index=0, file_index=0))
    _write_tasks(sentences, folder / TASKS)
    features = _features(view, frames_per_second)
    _write_json(_whole_statistics(folder, parts, features, pixels), folder / STATISTICS)
    info = {
        "codebase_version": VERSION,
        "robot_type": "sawyer",
        "total_episodes": len(episodes),
        "total_frames": sum(row["length"] for row in episodes),
        "total_tasks": len(sentences),
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": frames_per_second,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA,
        "video_path": VIDEO if view else None,
        "features": features,
    }
    _write_json(info, folder / INFO)


def check_video(view: View | None, frames_per_second: int) -> None:
    """Refuse what H.264 cannot hold.

    Raises:
        ExportError: the side of a frame is odd or not positive, or the rate is not positive.
    """
    if view is not None and (view.size_px < 2 or view.size_px % 2):
        raise ExportError(f"H.264 wants frames of even sides, got {view.size_px} pixels")
    if frames_per_second < 1:
        raise ExportError(f"a video has at least 1 frame a second, got {frames_per_second}")


def _parts(paths: Sequence[Path], behaviours: tuple[str, ...]) -> tuple[list[Part], list[str]]:
    """Return the parts of a data set, and its sentences in the order of their numbers."""
    parts, n_episodes, n_steps = [], 0, 0
    number_of: dict[str, int] = {}
    for number, path in enumerate(paths):
        data = Trajectories.load(path).with_behaviours(*behaviours)
        sentence = number_of.setdefault(find_task(data.task_name).instruction, len(number_of))
        parts.append(Part(path, behaviours, data.task_name, number, sentence, n_episodes, n_steps))
        n_episodes += len(data)
        n_steps += len(data) * data.n_steps
    return parts, list(number_of)


Job = tuple[Path, Part, View | None, int, MakeEnv]
Written = tuple[list[dict[str, Any]], Histogram]


def _write_parts(jobs: list[Job], workers: int) -> Iterator[Written]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_write_part, jobs)
        return
    # Every process draws in an OpenGL context of its own, which a forked one could not.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(_write_part, jobs)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nothing that waits is begun


def _write_part(job: Job) -> Written:
    """Write the table and the video of a task; return rows on its episodes, and the histogram of its frames."""
    folder, part, view, frames_per_second, make_env = job
    data = part.load()
    columns = _columns(data, part, frames_per_second)
    where = {"chunk_index": 0, "file_index": part.number}
    _write_table(columns, folder / DATA.format(**where))
    rows = [_episode(data, part, columns, i) for i in range(len(data))]
    histograms = np.zeros((len(data), 3, LEVELS_OF_A_PIXEL), np.int64)
    if view is not None:
        key = _video_key(view)
        path = folder / VIDEO.format(video_key=key, **where)
        histograms = _write_video(path, data, view, frames_per_second, make_env)
        seconds = data.n_steps / frames_per_second
        for i, row in enumerate(rows):
            start = {"from_timestamp": i * seconds, "to_timestamp": (i + 1) * seconds}
            row.update(
                {f"videos/{key}/{name}": value for name, value in {**where, **start}.items()}
            )
            row.update(_flat_statistics(key, pixel_statistics(histograms[i], view.size_px)))
    return rows, histograms.sum(0)


def _columns(data: Trajectories, part: Part, frames_per_second: int) -> Columns:
    """Return the table of a task, each column [episodes * steps, ...]."""
    n_episodes, n_steps = len(data), data.n_steps
    frame = np.tile(np.arange(n_steps), n_episodes)
    return {
        "observation.state": data.obs.reshape(-1, data.obs.shape[-1]),
        "action": data.action.reshape(-1, data.action.shape[-1]),
        "next.reward": data.env_reward.reshape(-1),
        "next.success": data.success.reshape(-1),
        "next.done": frame == n_steps - 1,
        "behaviour": np.repeat(np.array(data.behaviour), n_steps),
        "timestamp": (frame / frames_per_second).astype(np.float32),
        "frame_index": frame,
        "episode_index": part.first_episode + np.repeat(np.arange(n_episodes), n_steps),
        "index": part.first_step + np.arange(len(frame)),
        "task_index": np.full(len(frame), part.sentence),
    }


def _episode(data: Trajectories, part: Part, columns: Columns, i: int) -> dict[str, Any]:
    steps = slice(i * data.n_steps, (i + 1) * data.n_steps)
    row: dict[str, Any] = {
        "episode_index": part.first_episode + i,
        "tasks": [find_task(data.task_name).instruction],
        "length": data.n_steps,
        "behaviour": data.behaviour[i],
        "seed": int(data.seed[i]),
        "dataset_from_index": part.first_step + steps.start,
        "dataset_to_index": part.first_step + steps.stop,
        "data/chunk_index": 0,
        "data/file_index": part.number,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for name, column in columns.items():
        if column.dtype.kind != "U":
            row.update(_flat_statistics(name, statistics(column[steps])))
    return row


def _write_video(
    path: Path, data: Trajectories, view: View, frames_per_second: int, make_env: MakeEnv
) -> Int[np.ndarray, "episodes colours levels"]:
    """Write what is seen before every action; return how often every level of a colour is seen in an episode."""
    import imageio.v2 as imageio  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "fps": frames_per_second,
        "codec": "libx264",
        "quality": None,  # X264 says it
        "macro_block_size": 2,
        "output_params": list(X264),
    }
    replay = Replay(data, make_env)
    scene = metaworld_scene(make_sawyer(data.task_name), view.camera, view.size_px, view.preset)
    histograms = []
    video: Any = imageio.get_writer(path, **settings)
    with video:
        for i in range(len(data)):
            episode = data.episode(i)
            # The file holds the states after the actions.
            before = np.concatenate([replay.first_snapshot(i)[None], episode.snapshots[:-1]])
            frames = scene.draw(episode.constants, before)
            for frame in frames:
                video.append_data(frame)
            histograms.append(histogram_of(frames))
    scene.close()
    return np.array(histograms)


def _features(view: View | None, frames_per_second: int) -> dict[str, dict[str, Any]]:
    features: dict[str, dict[str, Any]] = {
        "observation.state": {"dtype": "float32", "shape": [len(STATE)], "names": STATE},
        "action": {"dtype": "float32", "shape": [len(ACTION)], "names": ACTION},
    }
    if view is not None:
        features[_video_key(view)] = {
            "dtype": "video",
            "shape": [view.size_px, view.size_px, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": view.size_px,
                "video.width": view.size_px,
                "video.channels": 3,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.fps": frames_per_second,
                "video.is_depth_map": False,
                "has_audio": False,
            },
        }
    scalars = {
        "next.reward": "float32", "next.success": "bool", "next.done": "bool", "behaviour": "string",
        "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
        "task_index": "int64",
    }  # fmt: skip
    for name, dtype in scalars.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def _video_key(view: View) -> str:
    return f"observation.images.{view.camera}"


def _flat_statistics(feature: str, numbers: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {f"stats/{feature}/{name}": value for name, value in numbers.items()}


def _whole_statistics(
    folder: Path, parts: list[Part], features: dict[str, Any], pixels: Histogram
) -> dict[str, dict[str, list[Any]]]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    paths = [folder / DATA.format(chunk_index=0, file_index=part.number) for part in parts]
    whole = {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            whole[name] = pixel_statistics(pixels, feature["shape"][0])
        elif feature["dtype"] != "string":
            columns = [pq.read_table(path, columns=[name])[name] for path in paths]
            whole[name] = statistics(np.concatenate([_array(column) for column in columns]))
    return whole


def _array(column: Any) -> NDArray[Any]:
    """Return a column of numbers, or of lists of equally many numbers, as an array [rows, ...]."""
    array = column.combine_chunks()
    flat = array.flatten() if hasattr(array.type, "list_size") else array
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)


def _write_table(columns: Columns | list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    if isinstance(columns, list):
        table = pa.Table.from_pylist(columns)
    else:
        table = pa.table({
            name: pa.array(column) if column.ndim == 1
            else pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])
            for name, column in columns.items()
        })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_tasks(sentences: list[str], path: Path) -> None:
    """Write the sentences as the index of a pandas table: LeRobot finds the number of a sentence by it."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    described = [
        {"name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**each, "field_name": each["name"], "metadata": None} for each in described],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": np.arange(len(sentences)), "task": sentences})
    table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_json(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
