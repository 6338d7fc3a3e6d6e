"""Trains a vision-language preference model on clips of many tasks."""

import dataclasses
import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.batches import (
    BatchConfig,
    MatchBatch,
    PreferenceBatch,
    TaskPool,
    match_batch,
    preference_batch,
)
from vlp_gym.training.features import task_clips
from vlp_gym.training.frames import FrameGrid, draw_data_set
from vlp_gym.training.losses import ilp_loss, itp_loss, ivp_loss, match_loss
from vlp_gym.training.probe import StateProbe
from vlp_gym.types import View

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How a preference model is trained. The defaults are the recipe of the bundled model, but for `data`."""

    data: tuple[Path, ...] = (Path("data/graded-0"),)
    """Folders that `vlp collect` wrote."""
    out: Path = Path("runs/vlp")
    """Run folder: the checkpoint, `curve.csv`, TensorBoard logs, and what a killed run resumes from."""
    cache: Path = Path("data/cache")
    """Drawn frames and encoder features."""
    split: str = "paper"
    start: Path | None = None
    """Weights of the encoders to start from (safetensors); None starts from random ones."""
    model: VLPConfig = field(default_factory=VLPConfig)
    view: View = View(DEFAULT_CAMERA, size_px=128)
    grid: FrameGrid = field(default_factory=FrameGrid)
    steps: int = 1000
    batch: BatchConfig = field(default_factory=BatchConfig)
    strangers_per_task: int = 2
    """Other tasks of which two clips are scored under each sentence: the negatives of IVP and ILP."""
    ilp_weight: float = 0.1
    """VLP table 13, lambda 1."""
    ivp_weight: float = 0.5
    """VLP table 13, lambda 2."""
    state_weight: float = 1.0
    """Weight of finding gripper and object on the frames, which teaches the tokens where things are (ours)."""
    match_weight: float = 0.5
    """Weight of telling tasks apart by what they show (ours)."""
    lr: float = 5e-4
    match_lr: float = 5e-3
    """Learning rate of the two embeddings that say what is shown and meant; they are linear."""
    weight_decay: float = 0.05
    warmup_steps: int = 100
    average_from: float = 0.4
    """Share of training after which weights are averaged; the average is what is saved."""
    accumulate: int = 1
    """Batches whose gradients make one step; for a larger batch than memory holds."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; `auto`: bfloat16 on a GPU, float32 on a CPU."""
    device: str = "auto"
    workers: int = 2
    """Processes that draw frames which no cache has yet."""
    seed: int = 0
    checkpoint_every: int = 250


def loss_of(
    model: VLP,
    probe: StateProbe,
    batch: PreferenceBatch,
    match: MatchBatch | None,
    config: TrainConfig,
) -> tuple[Tensor, dict[str, float]]:
    """Return VLP's total loss (section 3.3) plus our state and match terms, and what it is made of."""
    n_tasks, n_clips = batch.features.shape[:2]
    device = model.place.device
    video = model.read_video(batch.features.to(device).flatten(0, 1))
    tokens = torch.stack([model.encoders.tokenize(s) for s in batch.sentences]).to(device)
    words = model.read_words(tokens)

    def under(clip: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores, and the same scores as IVP sees them: with a match, IVP leaves progress alone."""
        pair = video[clip], words[sentence]
        progress = model.progress(*pair)
        score = model.join(progress, *pair)
        return score, score if model.match is None else model.join(progress.detach(), *pair)

    task = torch.arange(n_tasks, device=device)
    index = torch.arange(n_tasks * n_clips, device=device).view(n_tasks, n_clips)
    own, own_shown = (
        score.view(n_tasks, n_clips)
        for score in under(index.flatten(), task.repeat_interleave(n_clips))
    )
    # Two windows of each of the next few tasks; tasks come in random order.
    shift = 1 + torch.arange(config.strangers_per_task, device=device)
    stranger = index[(task[:, None] + shift) % n_tasks][..., :2]  # [tasks, strangers, 2]
    other, other_shown = (
        score.view(n_tasks, config.strangers_per_task, 2)
        for score in under(
            stranger.flatten(), task.repeat_interleave(2 * config.strangers_per_task)
        )
    )

    itp = itp_loss(own, batch.label.to(device), batch.weight.to(device))
    ivp, ilp = ivp_loss(own_shown, other_shown.flatten(1)), ilp_loss(other.flatten(0, 1))
    where = F.smooth_l1_loss(
        10 * probe(video.tokens), 10 * batch.state.to(device).flatten(0, 1), beta=1.0
    )
    total = itp + config.ilp_weight * ilp + config.ivp_weight * ivp + config.state_weight * where
    info = {"itp_loss": itp, "ilp_loss": ilp, "ivp_loss": ivp, "state_loss": where}
    if match is not None:
        info["match_loss"] = _match_loss(model, match)
        total = total + config.match_weight * info["match_loss"]
    info = {"loss": total, **info}
    return total, {name: float(value.detach()) for name, value in info.items()}


def _match_loss(model: VLP, batch: MatchBatch) -> Tensor:
    device = model.place.device
    tokens = torch.stack([model.encoders.tokenize(s) for s in batch.sentences]).to(device)
    logit = model.match_logit(batch.features.to(device), tokens)  # [sentences, clips]
    n_sentences, n_clips = logit.shape
    task_of_clip = torch.arange(n_clips, device=device) // (n_clips // n_sentences)
    return match_loss(logit, task_of_clip == torch.arange(n_sentences, device=device)[:, None])


def train(config: TrainConfig) -> Path:
    """Train a model and return the folder of its checkpoint, `config.out / "checkpoint"`.

    A killed run goes on from its last checkpoint and ends as if it had never been killed.

    Raises:
        CheckpointError: data, start weights or a run folder that are missing, damaged or of another configuration.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    _check_same_config(config)
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    model = VLP(config.model)
    if config.start is not None:
        _load_start(model, config.start)
    model.to(device)
    pool, fingerprint = _load_pool(model, config)
    run = _Run(config, model, device)
    run.resume()
    bar = tqdm(total=config.steps, initial=run.step, desc="batches", disable=None)
    board = SummaryWriter(str(config.out / "tensorboard"), purge_step=run.step + 1)
    with bar, board:
        while run.step < config.steps:
            info = run.advance(pool)
            for name, value in info.items():
                board.add_scalar(f"train/{name}", value, run.step)
            bar.set_postfix({name: f"{value:.3f}" for name, value in info.items()}, refresh=False)
            bar.update()
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                run.save()
    return _export(run, fingerprint)


class _Run:
    """Everything that changes while a model trains, so that it can be saved and resumed as a whole."""

    def __init__(self, config: TrainConfig, model: VLP, device: torch.device) -> None:
        self.config, self.model, self.step = config, model, 0
        self.probe = StateProbe(config.model.width, config.model.n_frames).to(device)
        _freeze(model)
        self.parameters = [
            p for part in (model, self.probe) for p in part.parameters() if p.requires_grad
        ]
        matching = [] if model.match is None else list(model.match.parameters())
        known = {id(parameter) for parameter in matching}
        rest = [p for p in self.parameters if id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": rest, "top_lr": config.lr},
            {"params": matching, "top_lr": config.match_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.average = torch.optim.swa_utils.AveragedModel(model)
        self.rng = np.random.default_rng(config.seed)
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        half = (
            device.type == "cuda" if config.precision == "auto" else config.precision == "bfloat16"
        )
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)

    def advance(self, pool: TaskPool) -> dict[str, float]:
        """Take one gradient step and return its losses, each a mean over the batches of the step."""
        started = time.perf_counter()
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["top_lr"] * _schedule(self.step, config)
        self.model.train()
        self.model.encoders.clip.visual.eval()  # frozen, its batch statistics too
        self.optimizer.zero_grad()
        parts = [self._backward(pool) for _ in range(config.accumulate)]
        info = {name: fmean(part[name] for part in parts) for name in parts[0]}
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        if self.step > config.average_from * config.steps:
            self.average.update_parameters(self.model)
        self.seconds += time.perf_counter() - started
        self.curve.append({"step": self.step, **info})
        return info

    def _backward(self, pool: TaskPool) -> dict[str, float]:
        config = self.config
        batch = preference_batch(pool, config.batch, self.rng)
        match = None if self.model.match is None else match_batch(pool, config.batch, self.rng)
        with self.autocast:
            loss, info = loss_of(self.model, self.probe, batch, match, config)
        (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
        return info

    @property
    def _file(self) -> Path:
        return self.config.out / "resume.pt"

    def save(self) -> None:
        """Write what `resume` needs, atomically."""
        state = {
            "step": self.step, "seconds": self.seconds, "curve": self.curve,
            "model": self.model.state_dict(), "probe": self.probe.state_dict(),
            "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state_all(),
            "numpy_rng": json.dumps(self.rng.bit_generator.state),
        }  # fmt: skip
        with atomic_path(self._file) as temporary:
            torch.save(state, temporary)
        rows = [
            ",".join(self.curve[0]),
            *(",".join(f"{v:g}" for v in row.values()) for row in self.curve),
        ]
        atomic_write_text(self.config.out / "curve.csv", "\n".join(rows) + "\n")

    def resume(self) -> None:
        """Take up a run where `save` left it; nothing to do in a new folder."""
        if not self._file.exists():
            return
        state = torch.load(self._file, weights_only=True, map_location=self.model.place.device)
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]
        for name in ("model", "probe", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        torch.set_rng_state(state["torch_rng"].cpu())
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda_rng"]])
        self.rng.bit_generator.state = json.loads(state["numpy_rng"])
        logger.info("going on from batch %d of %d", self.step, self.config.steps)


def _schedule(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _freeze(model: VLP) -> None:
    # The vision tower is frozen because its features are cached, the token table so that words never
    # met keep their place.
    for parameter in model.encoders.clip.visual.parameters():
        parameter.requires_grad_(False)
    model.encoders.clip.token_embedding.weight.requires_grad_(False)


def _load_start(model: VLP, path: Path) -> None:
    try:
        model.encoders.load_state_dict(load_file(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not hold weights of {model.config.clip!r} encoders: {error}"
        ) from error


def _load_pool(model: VLP, config: TrainConfig) -> tuple[TaskPool, str]:
    """Return the clips of the split's training tasks, of every data folder, and the hash of what they hold."""
    pool, digest = [], hashlib.blake2b(digest_size=16)
    names = find_split(config.split).train
    if config.workers > 1:
        for folder in config.data:
            draw_data_set(
                folder, names, config.view, config.grid, config.cache / "frames", config.workers
            )
    model.eval()
    for name in names:
        folders = []
        for folder in config.data:
            data = Trajectories.load(folder / f"{name}.npz")
            digest.update(data.fingerprint().encode())
            clips = task_clips(
                data,
                model.encoders,
                config.view,
                config.grid,
                config.model.n_frames,
                config.cache,
            )
            folders.append(clips)
        pool.append(folders)
    return pool, digest.hexdigest()


def _check_same_config(config: TrainConfig) -> None:
    text = json.dumps(dataclasses.asdict(config), indent=1, default=str) + "\n"
    path = config.out / "config.json"
    if path.exists() and path.read_text() != text:
        raise CheckpointError(
            f"{config.out} holds a run of other settings; choose another folder for this one"
        )
    atomic_write_text(path, text)


def _export(run: _Run, fingerprint: str) -> Path:
    config = run.config
    averaged = run.average.module if int(run.average.n_averaged) else run.model
    assert isinstance(averaged, VLP)
    training = {
        "split": config.split, "train_tasks": list(find_split(config.split).train), "fingerprint": fingerprint,
        "steps": config.steps, "seed": config.seed, "seconds": round(run.seconds, 1),
        "start": config.start.name if config.start else None,
        "ilp_weight": config.ilp_weight, "ivp_weight": config.ivp_weight, "state_weight": config.state_weight,
        "match_weight": config.match_weight,
    }  # fmt: skip
    folder = config.out / "checkpoint"
    checkpoint = Checkpoint(averaged.eval(), config.view, config.grid.stride, training)
    return checkpoint.save_pretrained(folder)
