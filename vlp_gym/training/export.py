"""Exports a data set of `vlp collect` to the formats of other libraries."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vlp_gym.atomic import atomic_folder
from vlp_gym.data.card import CARD, data_card
from vlp_gym.data.lerobot import STEPS_PER_SECOND, write_lerobot
from vlp_gym.data.minari import write_minari
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, ExportError
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, UNDOING, find_task
from vlp_gym.training.collect import collect_command, settings_of, tasks_of
from vlp_gym.training.command_line import command_line
from vlp_gym.training.undoing import make_env
from vlp_gym.types import View

logger = logging.getLogger(__name__)

_LEROBOT_HEADER = """configs:
- config_name: default
  data_files: data/*/*.parquet
"""
_LEROBOT_NOTES = """## How to read it

```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

data = LeRobotDataset("local/{name}", root="THIS FOLDER")
```

A row is what was before an action, the action, and what came of it (`next.reward` is the simulator's, `next.done` the
end of the recording). `behaviour` says who acted; `data.meta.episodes` has it too, and the seed of every episode.
"""
_MINARI_NOTES = """## How to read it

```python
import os

os.environ["MINARI_DATASETS_PATH"] = "THIS FOLDER"

import minari
import vlp_gym  # registers the env

data = minari.load_dataset("{example}")
env = data.recover_environment()
```

`infos["success"]` says of every state whether the simulator calls it a success; the metadata of an episode names its
`behaviour` and its `episode_seed`, which `env.unwrapped.reset(seed=episode_seed)` starts it from. All end truncated.
"""


@dataclass(frozen=True)
class ExportConfig:
    """What to export, in which format, and where to."""

    data: tyro.conf.Positional[Path]
    """A folder that `vlp collect` wrote."""
    format: Literal["lerobot", "minari"]
    """`lerobot`: one LeRobotDataset v3.0, with videos; `minari`: one Minari data set a task, without pictures."""
    out: Path | None = None
    """A new folder; None: beside the data, its name with the format behind it."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; empty: all that were collected, for Minari those that have an env."""
    behaviours: tuple[str, ...] = ()
    """Only episodes of these behaviours; empty: of all."""
    video: bool = True
    """LeRobot: draw what is seen before every action."""
    camera: str = DEFAULT_CAMERA
    """LeRobot: the camera of the videos."""
    size_px: int = 224
    """LeRobot: height and width of a frame; even."""
    preset: str = "fast"
    """LeRobot: drawing quality: exact, fast, draft."""
    fps: int = STEPS_PER_SECOND
    """LeRobot: the rate of steps, and of frames, that it is told; every step is a frame."""
    workers: int = 2
    """LeRobot: processes that draw; each draws whole tasks."""


def export(config: ExportConfig) -> Path:
    """Export a data set and return the new folder; whatever interrupts it, there is a whole one or none.

    Raises:
        CheckpointError: the data set is missing or damaged, or its episodes do not repeat here.
        ExportError: the format cannot hold what was asked for: a data set of Minari names its env, and tasks that undo
            others have none.
        FileExistsError: there is something where the export belongs.
        MissingExtraError: the library of the format is not installed.
        UnknownNameError: no such task, behaviour, camera or preset.
    """
    seed = settings_of(config.data)["seed"]
    source = config.data.resolve()
    names = list(dict.fromkeys(find_task(name).name for name in config.tasks)) or tasks_of(source)
    if config.format == "minari":
        names = _with_env(names, asked=bool(config.tasks))
    if not names:
        raise CheckpointError(f"{config.data} holds no trajectories; run `vlp collect` first")
    paths = [source / f"{name}.npz" for name in names]
    out = config.out or source.with_name(f"{source.name}-{config.format}")
    with atomic_folder(out) as folder:
        if config.format == "lerobot":
            view = View(config.camera, config.size_px, config.preset) if config.video else None
            write_lerobot(
                folder, paths, config.behaviours, view, config.fps, config.workers, make_env
            )
            header, notes = _LEROBOT_HEADER, _LEROBOT_NOTES.format(name=out.name)
        else:
            ids = write_minari(folder, paths, source.name, config.behaviours)
            header, notes = "", _MINARI_NOTES.format(example=ids[0])
        card = data_card(
            out.name,
            (Trajectories.load(path).with_behaviours(*config.behaviours) for path in paths),
            seed=seed,
            command=f"{collect_command(source, names)}\n{export_command(config)}",
            tags=["LeRobot"] if config.format == "lerobot" else ["minari"],
            header=header,
            notes=notes,
        )
        (folder / CARD).write_text(card)
    return out


def _with_env(names: list[str], *, asked: bool) -> list[str]:
    """Return the tasks that have an env of their own; the others are left out, or refused if they were asked for."""
    without = [name for name in names if name in UNDOING]
    # A folder of nothing else was asked for, too.
    if without and (asked or without == names):
        raise ExportError(
            f"a data set of Minari names its env, and what undoes another task has none: {', '.join(without)}; export "
            "it with --format lerobot, or name other tasks by --tasks"
        )
    if without:
        logger.warning(
            "left out %d of %d tasks: Minari names the env of a data set, and what undoes another task has none: %s",
            len(without),
            len(names),
            ", ".join(without),
        )
    return [name for name in names if name not in UNDOING]


def export_command(config: ExportConfig) -> str:
    """Return the command line of an export, with the data where `vlp collect` leaves them."""
    words = ["vlp", "export", f"data/{config.data.resolve().name}"]
    return command_line(words, config, leave_out=("data", "out", "workers"))
