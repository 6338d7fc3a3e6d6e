"""Trains a vision-language preference model on clips of many tasks."""

import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.tasks.instructions import training_instructions
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.losses import ilp_loss, itp_loss, ivp_loss
from vlp_gym.types import View

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How a preference model is trained. The defaults are the recipe of the bundled model."""

    data: tuple[Path, ...] = (Path("data/graded"),)
    """Folders that `vlp collect` wrote."""
    out: Path = Path("runs/vlp")
    """Run folder: the checkpoint, the metrics, and what a killed run resumes from."""
    cache: Path = Path("data/cache")
    """Drawn frames and encoder features."""
    split: str = "paper"
    start: Path | None = None
    """Weights of the encoders to start from (safetensors); None starts from random ones."""
    model: VLPConfig = field(default_factory=VLPConfig)
    view: View = View(DEFAULT_CAMERA, size_px=128)
    grid: FrameGrid = field(default_factory=FrameGrid)
    steps: int = 3000
    tasks_per_batch: int = 8
    windows_per_task: int = 6
    """Windows of one task in a batch; every pair of them is a preference."""
    others_per_task: int = 2
    """Clips of other tasks that are scored under each sentence: the negatives of IVP and ILP."""
    ilp_weight: float = 0.1
    """VLP table 13, lambda 1."""
    ivp_weight: float = 0.5
    """VLP table 13, lambda 2."""
    state_weight: float = 1.0
    """Weight of finding gripper and object on the frames, which teaches the tokens where things are (ours)."""
    rank_sharpness: float = 12.0
    """A label is sigmoid(sharpness * difference of rank): sure where returns differ, soft where they nearly tie."""
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup_steps: int = 100
    average_from: float = 0.5
    """Share of training after which weights are averaged; the average is what is saved."""
    device: str = "auto"
    seed: int = 0
    checkpoint_every: int = 250


class StateProbe(nn.Module):
    """Reads gripper and object positions off the video tokens; thrown away after training."""

    def __init__(self, width: int, n_frames: int) -> None:
        super().__init__()
        self.n_frames = n_frames
        self.look = nn.Linear(width, 8)
        self.read = nn.Sequential(nn.Linear(8 * width, 128), nn.GELU(), nn.Linear(128, 6 * n_frames))

    def forward(self, video: Tensor) -> Tensor:
        """Return positions [clips, frames, 6] from tokens [clips, patches, width]."""
        attention = self.look(video).softmax(dim=1)  # [clips, patches, 8]
        seen = torch.einsum("cpw,cpk->ckw", video, attention).flatten(1)
        out: Tensor = self.read(seen).unflatten(1, (self.n_frames, 6))
        return out


@dataclass(frozen=True)
class Batch:
    """Clips of some tasks: windows first, then one whole trajectory of every level, [tasks, clips, ...]."""

    features: Tensor
    state: Tensor
    label: Tensor
    weight: Tensor
    sentences: list[str]


def sample_batch(tasks: list[TaskClips], config: TrainConfig, rng: np.random.Generator) -> Batch:
    """Return a random batch; tasks uniformly, then clips of any behaviour, then one of the task's sentences."""
    chosen = rng.choice(len(tasks), config.tasks_per_batch, replace=False)
    rows = [_sample_rows(tasks[i], config.windows_per_task, rng) for i in chosen]
    labels = [_labels(tasks[i], r, config) for i, r in zip(chosen, rows, strict=True)]
    return Batch(
        features=torch.stack([tasks[i].gather(r) for i, r in zip(chosen, rows, strict=True)]),
        state=torch.stack([tasks[i].gather_state(r) for i, r in zip(chosen, rows, strict=True)]),
        label=torch.stack([label for label, _ in labels]),
        weight=torch.stack([weight for _, weight in labels]),
        sentences=[str(rng.choice(training_instructions(tasks[i].clips.task_name))) for i in chosen],
    )


def _sample_rows(task: TaskClips, n_windows: int, rng: np.random.Generator) -> np.ndarray:
    clips = task.clips
    windows = rng.choice(np.flatnonzero(~clips.whole), n_windows, replace=False)
    levels = [rng.choice(np.flatnonzero(clips.level == level)) for level in range(3)]
    return np.concatenate([windows, levels])


def _labels(task: TaskClips, rows: np.ndarray, config: TrainConfig) -> tuple[Tensor, Tensor]:
    clips = task.clips
    whole = clips.whole[rows]
    rank, level = np.nan_to_num(clips.rank[rows]), clips.level[rows]
    by_rank = 1 / (1 + np.exp(-config.rank_sharpness * (rank[None, :] - rank[:, None])))
    by_level = 0.5 + 0.5 * np.sign(level[None, :] - level[:, None])
    label = np.where(whole[:, None] & whole[None, :], by_level, by_rank)
    same_kind = whole[:, None] == whole[None, :]
    weight = np.triu(same_kind, k=1)  # every pair once, whichever way round
    return torch.tensor(label, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32)


def loss_of(model: VLP, probe: StateProbe, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """Return VLP's total loss (section 3.3) plus the state term, and what it is made of."""
    n_tasks, n_clips = batch.features.shape[:2]
    device = model.place.device
    video = model.video_tokens(batch.features.to(device).flatten(0, 1))
    tokens = torch.stack([model.encoders.tokenize(s) for s in batch.sentences]).to(device)
    words, is_word = model.word_tokens(tokens)

    def under(clip: Tensor, sentence: Tensor) -> Tensor:
        return model.score_tokens(video[clip], words[sentence], is_word[sentence])

    task = torch.arange(n_tasks, device=device)
    index = torch.arange(n_tasks * n_clips, device=device).view(n_tasks, n_clips)
    own = under(index.flatten(), task.repeat_interleave(n_clips)).view(n_tasks, n_clips)
    # Sentences move on by a random number of tasks: each then meets clips of one other task.
    shift = int(torch.randint(1, n_tasks, ()))
    stranger = index[:, : config.others_per_task].roll(-shift, 0)
    other = under(stranger.flatten(), task.repeat_interleave(config.others_per_task)).view(n_tasks, -1)

    itp = itp_loss(own, batch.label.to(device), batch.weight.to(device))
    ivp, ilp = ivp_loss(own, other), ilp_loss(other)
    where = F.smooth_l1_loss(10 * probe(video), 10 * batch.state.to(device).flatten(0, 1), beta=1.0)
    total = itp + config.ilp_weight * ilp + config.ivp_weight * ivp + config.state_weight * where
    info = {"loss": total, "itp_loss": itp, "ilp_loss": ilp, "ivp_loss": ivp, "state_loss": where}
    return total, {name: float(value.detach()) for name, value in info.items()}
