"""`vlp replay`: a video of any past episode of a run, drawn from its states, by any camera."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from vlp_gym.feedback.archive import ArchivedEpisode, numbers_of
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.video import write_video


@dataclass(frozen=True)
class ReplayConfig:
    """Which episode, and how it is drawn."""

    run: tyro.conf.Positional[Path]
    """Folder of a run."""
    episode: int | None = None
    """Number of the episode, from 0; None: the latest one that ended."""
    camera: str = DEFAULT_CAMERA
    """Name of a camera of the simulator, such as corner3."""
    size_px: int = 480
    """Side of a frame."""
    preset: str = "exact"
    """Drawing quality: exact, fast or draft."""
    every: int = 2
    """Draws every so many steps."""
    out: Path | None = None
    """The video; None: beside the run's other files."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.every < 1 or self.size_px < 16:
            raise ValueError(
                f"every must be 1 or more and size_px 16 or more, got {self.every} and {self.size_px}"
            )


def replay(config: ReplayConfig) -> Path:
    """Draw an episode that a run kept as an mp4 with the sentence under it, and return where it is.

    Raises:
        CheckpointError: the run has kept no such episode.
        UnknownNameError: no such camera or preset, or a world that is no task of Meta-World.
        RenderingError: this machine cannot draw.
    """
    number = config.episode
    if number is None:
        number = (numbers_of(config.run) or [0])[-1]
    episode = ArchivedEpisode(config.run, number)
    scene = metaworld_scene(make_sawyer(episode.name), config.camera, config.size_px, config.preset)
    steps = np.arange(0, len(episode), config.every)
    out = config.out or config.run / f"episode_{number}_{config.camera}.mp4"
    try:
        frames = scene.draw(episode.constants, episode.snapshots[steps])
    finally:
        scene.close()
    reached = np.maximum.accumulate(episode.success)[steps]
    write_video(out, list(frames), episode.instruction, reached.tolist())
    return out
