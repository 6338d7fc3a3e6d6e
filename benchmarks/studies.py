"""What every part of the preference model's training is worth: small trainings that differ in one thing.

`python -m benchmarks.studies` trains what is missing under runs/studies and writes one `results/study_NAME.json` a
study, after every training; `--studies loss_weights data_size` does a part. All are judged on `paper-dev`, six training
tasks held out, but for the one on the ML45 split. One small training each: differences of a few points are noise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from agents.run import provenance, write_json
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.models.vlp import VLPConfig
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.collect import EPISODES, CollectConfig, collect
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.evaluation import EvaluateConfig, evaluate
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.jitter import STILL, Jitter
from vlp_gym.training.objective import LossConfig
from vlp_gym.training.trainer import train, trained_on

DATA = {
    "graded": EPISODES["graded"],
    "half": {name: n // 2 for name, n in EPISODES["graded"].items()},
    "three-quarters": {name: 3 * n // 4 for name, n in EPISODES["graded"].items()},
    "levels": {"expert": 24, "medium": 24, "random": 24},
}
"""Episodes a task of every behaviour; `levels` has as many as `graded`, of the paper's three levels only."""

SHOWN = {
    "itp": "ITP",
    "ivp": "IVP",
    "exploring": "exploring vs return",
    "ilp_delta": "|delta| under ILP",
    "opposite": "opposite sentence",
    "paper_accuracy": "k-means labels",
    "paper_constant": "constant answer",
}
"""Figures of `vlp evaluate` and their headings."""


@dataclass(frozen=True)
class Variant:
    """One training: what it changes of the base, and what the paper prints for the same change.

    Attributes:
        run: name of its folder; trainings that several studies show have one.
        changes: fields of `TrainConfig`.
        data: a name in `DATA`.
        folders: how many data folders, each of another seed.
        start: whether the encoders start from trained weights.
        paper: the paper's figures.
    """

    run: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str = "graded"
    folders: int = 1
    start: bool = True
    paper: Mapping[str, float] = field(default_factory=dict)


PLAIN = VLPConfig(aim=False, match_margin=2.0, match_sharpness=1.0, match_floor=0.0)
"""Without our comparison of where things are and where they are wanted, and with the gentle match of before."""
PLAIN_LOSS = LossConfig(ivp=0.25, undo=0.0, aim=0.0)
"""The weights of the bundled model's trainings; half of the paper's for IVP."""
PUBLISHED = replace(PLAIN, match_width=0)
"""Without our match of what is shown and meant either, which would hide what the weight of IVP does."""


def _loss(ilp: float, ivp: float, itp_paper: float, ivp_paper: float) -> Variant:
    loss = replace(PLAIN_LOSS, ilp=ilp, ivp=ivp, match=0.0)
    changes = {"loss": loss, "model": PUBLISHED}
    return Variant(f"ilp{ilp}-ivp{ivp}", changes, paper={"ITP": itp_paper, "IVP": ivp_paper})


BASE = Variant("base")
AIMING = {"loss": replace(PLAIN_LOSS, aim=0.5), "model": replace(PLAIN, aim=True)}

STUDIES: dict[str, dict[str, Variant]] = {
    "loss_weights": {
        "ILP 0, IVP 0.5": _loss(0.0, 0.5, 0.954, 0.741),
        "ILP 0.5, IVP 0.5": _loss(0.5, 0.5, 0.858, 0.747),
        "ILP 0.1, IVP 0": _loss(0.1, 0.0, 0.962, 0.630),
        "ILP 0.1, IVP 1": _loss(0.1, 1.0, 0.958, 0.965),
        "ILP 0.1, IVP 0.5": _loss(0.1, 0.5, 0.974, 0.917),
    },
    "data_size": {
        "half": Variant("half", data="half", paper={"ITP": 0.942, "IVP": 0.896}),
        "three quarters": Variant(
            "three-quarters", data="three-quarters", paper={"ITP": 0.952, "IVP": 0.897}
        ),
        "all": replace(BASE, paper={"ITP": 0.974, "IVP": 0.917}),
        "twice as much": Variant("twice", folders=2),
    },
    "sentences": {
        "1 a task": Variant("sentences1", {"own_sentences": 1}),
        "10 a task": Variant("sentences10", {"own_sentences": 10}),
        "all, about 40": BASE,
    },
    "parts": {
        "all": BASE,
        "three levels only": Variant("levels", data="levels"),
        "no match": Variant(
            "no-match", {"loss": replace(PLAIN_LOSS, match=0.0), "model": PUBLISHED}
        ),
        "no places of gripper and object": Variant(
            "no-state", {"loss": replace(PLAIN_LOSS, state=0.0)}
        ),
        "reversals": Variant("undo", {"loss": replace(PLAIN_LOSS, undo=0.5)}),
    },
    "undoing": {
        "39 tasks": BASE,
        "and those that undo": Variant("undoing", {"undoing": True}),
        "and their aim": Variant("aim", {"undoing": True, **AIMING}),
        "and both sentences of every clip": Variant(
            "aim-undo", {"undoing": True, **AIMING, "loss": replace(PLAIN_LOSS, undo=0.5, aim=0.5)}
        ),
    },
    "frames": {
        "2 frames": Variant(
            "frames2", {"model": replace(PLAIN, n_frames=2), "grid": FrameGrid(stride=48)}
        ),
        "4 frames": BASE,
        "8 frames": Variant(
            "frames8", {"model": replace(PLAIN, n_frames=8), "grid": FrameGrid(stride=7)}
        ),
    },
    "encoder": {
        "random": Variant("random-encoder", start=False),
        "trained, coarse features only": Variant("coarse", {"model": replace(PLAIN, stages=(3,))}),
        "trained": BASE,
    },
    "jitter": {
        "the camera stays": BASE,
        "and a look of its own for every episode": Variant("jitter", {"jitter": Jitter()}),
    },
    "ml45": {
        "ML45 split": Variant("ml45", {"split": "ml45"}, paper={"k-means labels": 0.970}),
    },
}
"""VLP's tables 13, 14, 16 (there: who wrote the sentences) and 18, and ours. "reversals": pairs under the sentence that
asks for the opposite, where both tasks are Meta-World's. "undoing": tasks of ours that undo others, a head that reads
which way a sentence wants things moved, and every clip under its own sentence and under the opposite one."""


@dataclass(frozen=True)
class Config:
    """Which studies, at which scale."""

    studies: tuple[str, ...] = tuple(STUDIES)
    steps: int = 300
    """Gradient steps of a training; each of those whose mean is the bundled model had 1,600."""
    split: str = "paper-dev"
    start: Path = Path("data/start.safetensors")
    """Trained weights of the encoders (`python -m benchmarks.start_weights`)."""
    data: Path = Path("data")
    runs: Path = Path("runs/studies")
    n_pairs: int = 2_000
    seed: int = 0
    device: str = "auto"
    results: Path = RESULTS


def study(config: Config) -> None:
    """Train and judge what is missing, and write every study after each of its trainings."""
    for name in config.studies:
        records = []
        for label, variant in STUDIES[name].items():
            records.append(_record(label, variant, config))
            write_records(f"study_{name}", records, config.results)


def _record(label: str, variant: Variant, config: Config) -> Record:
    wanted = settings(variant, config)
    path = wanted.out / "result.json"
    if not path.exists():
        write_json(path, _measure(variant, wanted, config) | provenance())
    split = find_split(wanted.split)
    return Record(
        task=f"mean of {len(split.test)}",
        method=label,
        paper=dict(variant.paper),
        seed=config.seed,
        scale=f"{config.steps} steps, split {wanted.split}, {config.n_pairs} pairs a figure, unseen sentences",
        **json.loads(path.read_text(encoding="utf-8")),
    )


def _measure(variant: Variant, wanted: TrainConfig, config: Config) -> dict[str, Any]:
    split = find_split(wanted.split)
    for seed, folder in enumerate(wanted.data):
        collect(
            CollectConfig(
                out=folder, tasks=trained_on(wanted), episodes=DATA[variant.data], seed=seed
            )
        )
    judging = config.data / "graded-0"
    collect(CollectConfig(out=judging, tasks=split.test))
    checkpoint = train(wanted)
    judged = evaluate(
        EvaluateConfig(
            checkpoint, judging, wanted.cache, wanted.split, config.n_pairs, device=config.device
        )
    ).as_json()["mean"]
    about = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return {
        "metrics": {head: judged[key] for key, head in SHOWN.items() if judged[key] is not None},
        "seconds": about["training"]["seconds"],
    }


def settings(variant: Variant, config: Config) -> TrainConfig:
    """Return the training of a variant."""
    data = variant.data if variant.data == "graded" else f"study-{variant.data}"
    base = TrainConfig(
        data=tuple(config.data / f"{data}-{seed}" for seed in range(variant.folders)),
        out=config.runs / f"{variant.run}-seed{config.seed}",
        cache=config.data / "cache",
        split=config.split,
        undoing=False,
        jitter=STILL,
        model=PLAIN,
        loss=PLAIN_LOSS,
        start=config.start if variant.start else None,
        steps=config.steps,
        seed=config.seed,
        device=config.device,
    )
    return replace(base, **variant.changes)


if __name__ == "__main__":
    study(tyro.cli(Config, description=__doc__))
