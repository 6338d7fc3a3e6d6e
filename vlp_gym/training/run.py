"""A training run: everything that changes while a model learns, saved and resumed as a whole."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import words_of
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.batches import Sentences, TaskPool, match_batch, preference_batch
from vlp_gym.training.config import Tower, TrainConfig
from vlp_gym.training.features import TaskClips
from vlp_gym.training.objective import Objective
from vlp_gym.training.validation import validation_figures

logger = logging.getLogger(__name__)

MADE_WITH = ("vlp-gym", "torch", "metaworld", "mujoco")
"""Packages whose versions a checkpoint names."""
SHOWN = ("train_tasks", "undoing", "replays", "words")
"""What a checkpoint says of the tasks and words that it was shown."""


class TrainingRun:
    """Takes gradient steps, judges, saves, resumes and exports; every process of several has one.

    Args:
        config: of the training.
        model: on its device.
        accelerator: knows the other processes, if there are any; each draws batches of its own, gradients are averaged.
        sentences: of the training tasks.
        fingerprint: of the training data.
        base: what the checkpoint that the model's weights are of says of its own training; None: they are new.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: VLP,
        accelerator: Accelerator,
        sentences: Sentences,
        fingerprint: str,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        self.sentences, self.fingerprint, self.base = sentences, fingerprint, base
        self.began_with = _digest(model, sentences, fingerprint)
        device = model.place.device
        freeze(model, config.tune)
        self.average = torch.optim.swa_utils.AveragedModel(model)
        if config.compile:
            for part in (model.video_layers, model.word_layers, *model.cross_layers):
                part.compile()
        self.objective = Objective(model, config.loss).to(device)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        matching = [] if model.match is None else list(model.match.parameters())
        known = {id(parameter) for parameter in matching}
        rest = [p for p in self.parameters if id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": rest, "top_lr": config.lr},
            {"params": matching, "top_lr": config.match_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self._shared = accelerator.prepare_model(self.objective, device_placement=False)
        # Another stream for every process and order; their weights are the same by now.
        apart = [accelerator.process_index, config.order]
        self.rng = np.random.default_rng([config.seed, *apart] if any(apart) else config.seed)
        if any(apart):
            torch.manual_seed(int(self.rng.integers(2**63)))
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.curve: list[dict[str, float]] = []
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
        self._shared.train()
        if "vision" not in self.config.tune:
            self.model.encoders.clip.visual.eval()  # frozen, its batch statistics too
        self.optimizer.zero_grad()
        parts = [self._backward(pool) for _ in range(config.accumulate)]
        info = {name: fmean(part[name] for part in parts) for name in parts[0]}
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        if self.step > config.average_from * config.steps:
            update_average(self.average, self.model)
        self.seconds += time.perf_counter() - started
        self.curve.append({"step": self.step, **info})
        return info

    def _backward(self, pool: TaskPool) -> dict[str, float]:
        config = self.config
        batch = preference_batch(pool, self.sentences, config.batch, self.rng)
        match = None
        if self.model.match is not None:
            match = match_batch(pool, self.sentences, config.batch, self.rng)
        with self.autocast:
            loss, info = self._shared(batch, match)
        (loss / config.accumulate).backward()
        return {name: float(value.detach()) for name, value in info.items()}

    @property
    def averaged(self) -> VLP:
        """The model that is saved: its weights are the mean of those of the latest steps."""
        averaged = self.average.module if int(self.average.n_averaged) else self.model
        assert isinstance(averaged, VLP)
        return averaged

    def validate(self, tasks: Sequence[TaskClips]) -> dict[str, float]:
        """Return figures on unseen episodes and sentences; export the model as "best" if it never was better."""
        if not tasks:
            return {}
        figures = validation_figures(self.averaged, tasks, self.config.seed)
        if figures["validation"] > self.best:
            self.best = figures["validation"]
            self.export("best")
        path = self.config.out / "validation.csv"
        header, *rows = (
            path.read_text().split() if path.exists() else [",".join(["step", *figures])]
        )
        # Who was killed before `save` comes by here again.
        rows = [row for row in rows if int(row.split(",")[0]) < self.step]
        rows.append(",".join([str(self.step), *(f"{value:g}" for value in figures.values())]))
        if self.accelerator.is_main_process:
            atomic_write_text(path, "\n".join([header, *rows]) + "\n")
        return figures

    @property
    def _file(self) -> Path:
        return self.config.out / "resume.pt"

    def save(self) -> None:
        """Write what `resume` needs, atomically."""
        streams = gather_object(
            [
                {
                    "torch": torch.get_rng_state(),
                    "cuda": torch.cuda.get_rng_state_all(),
                    "numpy": json.dumps(self.rng.bit_generator.state),
                }
            ]
        )
        if not self.accelerator.is_main_process:
            return
        state = {
            "began_with": self.began_with,
            "step": self.step, "seconds": self.seconds, "best": self.best, "curve": self.curve,
            "objective": self.objective.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(), "streams": streams,
        }  # fmt: skip
        with atomic_path(self._file) as temporary:
            torch.save(state, temporary)
        rows = [
            ",".join(self.curve[0]),
            *(",".join(f"{v:g}" for v in row.values()) for row in self.curve),
        ]
        atomic_write_text(self.config.out / "curve.csv", "\n".join(rows) + "\n")

    def resume(self) -> None:
        """Take up a run where `save` left it; nothing to do in a new folder.

        Raises:
            CheckpointError: the file is damaged, or the run began with other data, sentences or weights.
        """
        if not self._file.exists():
            return
        state = self._saved()
        if state.get("began_with", self.began_with) != self.began_with:
            raise CheckpointError(
                f"{self.config.out} holds a run that began with other data, sentences or weights than its files have "
                "now; bring those back, or choose another folder"
            )
        for name in ("step", "seconds", "best", "curve"):
            setattr(self, name, state[name])
        for name in ("objective", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        streams = state["streams"]
        # With more processes than before, the new ones go on with streams of their own.
        if self.accelerator.process_index < len(streams):
            mine = streams[self.accelerator.process_index]
            torch.set_rng_state(mine["torch"].cpu())
            torch.cuda.set_rng_state_all([each.cpu() for each in mine["cuda"]])
            self.rng.bit_generator.state = json.loads(mine["numpy"])
        logger.info("going on from batch %d of %d", self.step, self.config.steps)

    def _saved(self) -> dict[str, Any]:
        device = self.model.place.device
        try:
            state: dict[str, Any] = torch.load(self._file, weights_only=True, map_location=device)
        except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
            raise CheckpointError(
                f"{self._file} is damaged, so that the run cannot go on: {error}; remove the folder to begin anew"
            ) from error
        return state

    @property
    def words(self) -> list[str]:
        """The words of the training sentences, in alphabetical order."""
        said = (sentence for sentences in self.sentences.values() for sentence in sentences)
        return sorted({word for sentence in said for word in words_of(sentence)})

    def export(self, name: str) -> Path:
        """Write the averaged model as a checkpoint and return its folder, `out / name`."""
        config, split = self.config, find_split(self.config.split)
        training = {
            "split": config.split, "train_tasks": list(split.train),
            "undoing": list(split.undoing) if config.undoing else [],
            "replays": replayed(split.train, config.replays), "words": self.words,
            "fingerprint": self.fingerprint, "steps": self.step, "seed": config.seed,
            "order": config.order,
            "seconds": round(self.seconds, 1), "start": config.start.name if config.start else None,
            "loss": vars(config.loss), "batch": vars(config.batch), "rank": config.rank,
            "jitter": vars(config.jitter),
            "versions": {name: version(name) for name in MADE_WITH},
        }  # fmt: skip
        if self.base is not None:
            training |= {"base": dict(self.base), **shown_in([self.base, training])}
        folder = config.out / name
        if self.accelerator.is_main_process:
            model = self.averaged.eval()
            Checkpoint(model, config.view, config.grid.stride, training).save_pretrained(folder)
        self.accelerator.wait_for_everyone()
        return folder


def replayed(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the tasks that one of the folders has a replay of."""
    return [name for name in names if any((each / f"{name}.npz").exists() for each in folders)]


def shown_in(trainings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return what a checkpoint says that it was shown in all trainings that it has gone through.

    Of words none, if one of the trainings, of an older version, does not say its own: a part of them would make the
    others unknown.
    """
    shown = {
        name: list(dict.fromkeys(each for training in trainings for each in training.get(name, ())))
        for name in SHOWN
    }
    if not all(training.get("words") for training in trainings):
        shown["words"] = []
    return shown


def _digest(model: VLP, sentences: Sentences, fingerprint: str) -> str:
    """Return a hash of everything that a run begins with."""
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    digest.update(json.dumps(sorted(sentences.items())).encode())
    for weights in model.state_dict().values():
        digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _schedule(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def freeze(model: VLP, tune: Sequence[Tower]) -> None:
    """Fix what is not trained: towers that are not in `tune`, and the token table.

    Words that training never met then keep their place beside those that it did.
    """
    clip = model.encoders.clip
    text = (clip.transformer, clip.ln_final)
    for part in (
        *(() if "vision" in tune else (clip.visual,)),
        *(() if "text" in tune else text),
    ):
        part.requires_grad_(False)
    clip.positional_embedding.requires_grad_("text" in tune)
    model.encoders.clip.token_embedding.weight.requires_grad_(False)


@torch.no_grad()
def update_average(average: torch.optim.swa_utils.AveragedModel, model: nn.Module) -> None:
    """Do what `average.update_parameters(model)` does, but leave out frozen weights, which are most and never change.

    Args:
        average: its weights become the mean of those that they were updated with.
        model: in training.
    """
    n_before = int(average.n_averaged)
    for mean, now in zip(average.module.parameters(), model.parameters(), strict=True):
        if now.requires_grad:
            mean.lerp_(now, 1 / (n_before + 1))
    for kept, new in zip(average.module.buffers(), model.buffers(), strict=True):
        kept.copy_(new)
    average.n_averaged += 1
