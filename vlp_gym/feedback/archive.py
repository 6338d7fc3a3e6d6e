"""The archive of a run: every episode that ended, as the states from which it can be drawn."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_write_text
from vlp_gym.errors import CheckpointError
from vlp_gym.feedback.state_file import load_state, save_state
from vlp_gym.types import Episode, Task

FOLDER = "episodes"
"""Where the archive lies in a run folder."""
CARD = "card.json"
"""What the envs are: the name and sentence of each."""


class EpisodeArchive:
    """Writes episodes as they end: `loop.on_episode.append(archive.add)`.

    An episode is one file, written at once or not at all; about 100 bytes a step for Meta-World. What a run that goes
    on repeats is the same and replaces itself.

    Args:
        run: the run folder.
        names: of each env's world, such as "ButtonPress"; `vlp replay` draws Meta-World's tasks.
        tasks: of each env.
    """

    def __init__(self, run: Path, names: Sequence[str], tasks: Sequence[Task]) -> None:
        self._folder = run / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        card = [
            {"name": name, "instruction": task.instruction}
            for name, task in zip(names, tasks, strict=True)
        ]
        atomic_write_text(self._folder / CARD, json.dumps({"envs": card}, indent=2) + "\n")

    def add(self, episode: Episode) -> None:
        """Write an episode."""
        save_state(
            file_of(self._folder, episode.number),
            {
                "number": episode.number,
                "env": episode.env,
                "snapshots": episode.snapshots,
                "constants": dict(episode.constants),
                "env_reward": episode.env_reward,
                "success": episode.success,
            },
        )


class ArchivedEpisode:
    """An episode of an archive.

    Args:
        run: the run folder.
        number: running number of the episode.

    Attributes:
        name: of its world.
        instruction: the sentence.
        snapshots: state after each action, [steps, state].
        constants: what the simulator fixed at reset.
        env_reward: the simulator's reward, [steps].
        success: whether the simulator said success, [steps].

    Raises:
        CheckpointError: there is no such episode, or its file is damaged.
    """

    def __init__(self, run: Path, number: int) -> None:
        folder = run / FOLDER
        if not (folder / CARD).exists():
            raise CheckpointError(
                f"{run} holds no episodes; name the folder of a run of agents.pebble that kept them"
            )
        path = file_of(folder, number)
        if not path.exists():
            numbers = numbers_of(run)
            has = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "none has ended there yet"
            raise CheckpointError(f"{run} has no episode {number}; {has}")
        state = load_state(path)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))["envs"][state["env"]]
        self.number = number
        self.name, self.instruction = str(card["name"]), str(card["instruction"])
        self.snapshots: NDArray[Any] = state["snapshots"]
        self.constants: dict[str, NDArray[Any]] = state["constants"]
        self.env_reward: Float[np.ndarray, " steps"] = state["env_reward"]
        self.success: NDArray[np.bool_] = state["success"]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.snapshots)


def file_of(folder: Path, number: int) -> Path:
    """Return the file of an episode in the folder of an archive."""
    return folder / f"{number:07d}.npz"


def numbers_of(run: Path) -> list[int]:
    """Return the numbers of all episodes that a run has kept, in order."""
    return sorted(int(path.stem) for path in (run / FOLDER).glob("[0-9]*.npz"))
