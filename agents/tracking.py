"""Where a run is logged: TensorBoard always, Weights & Biases or trackio if asked for."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from vlp_gym.errors import MissingExtraError

PROJECT = "vlp-gym"


class Tracker(KVWriter):
    """Sends what Stable-Baselines3 logs to a tracker with the calls of Weights & Biases, as trackio has them too.

    Args:
        name: of the package, `wandb` or `trackio`.
        folder: the run folder; its name is the run's.
        config: settings of the run.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            self._package = import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f'--track {name} needs the package {name}: pip install -e ".[track]"'
            ) from error
        self._package.init(
            project=PROJECT,
            name=folder.name,
            config=dict(config),
            resume="allow",
            **_id(name, folder),
        )

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Send the numbers among what was logged."""
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, int | float) or hasattr(value, "dtype")
        }
        self._package.log(numbers, step=step)

    def close(self) -> None:
        """End the run there."""
        self._package.finish()


def _id(name: str, folder: Path) -> dict[str, str]:
    # A run that goes on after a stop goes on there, too; trackio knows runs by their name alone.
    return {"id": folder.name} if name == "wandb" else {}


def make_logger(folder: Path, track: str | None, config: Mapping[str, Any]) -> Logger:
    """Return the logger of a run.

    Args:
        folder: the run folder.
        track: `wandb`, `trackio`, or None for TensorBoard alone.
        config: settings of the run, for the tracker.
    """
    board = folder / "tensorboard"
    writers: list[KVWriter] = [make_output_format("tensorboard", str(board))]
    if track is not None:
        writers.append(Tracker(track, folder, config))
    return Logger(str(board), writers)
