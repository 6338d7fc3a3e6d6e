"""The bundled preference model on the five tasks that it never saw, in sentences that it never read.

`python -m benchmarks.preference_model` collects the test tasks' trajectories if they are missing, and writes
`results/preference_model.json`, for the levels apart and pairs of segments `results/levels.json`, and for other sets of
sentences `results/languages.json`. Another model, on the tasks that its own split holds out, is written under a name
of its own:
`--checkpoint runs/dev/checkpoint --split paper-dev --name held_out --method "one training"`.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.evaluation import EvaluateConfig, evaluate

SHOWN = {
    "itp": "ITP",
    "itp_of_return": "ITP of the return",
    "ivp": "IVP",
    "ilp_delta": "|delta| under ILP",
    "exploring": "exploring vs return",
    "exploring_clear": "exploring, larger gaps",
    "opposite": "opposite sentence",
    "opposite_moved": "opposite, with an expert",
    "paper_accuracy": "k-means labels",
    "paper_constant": "constant answer",
    "paper_balanced": "k-means, balanced",
}
"""Figures of `vlp evaluate` and their headings."""

LEVELS = {
    "expert_random": "expert over random",
    "expert_medium": "expert over medium",
    "medium_random": "medium over random",
    "windows": "segments of any behaviour",
    "windows_clear": "larger gaps",
    "within_level": "segments within a level",
    "succeeding": "segments in success, by how long",
    "rank_correlation": "rank correlation",
}
"""The same of what `levels.json` has: trajectories of two levels alone, and segments by their return."""

PAPER = {"ITP": 0.974, "IVP": 0.917, "k-means labels": 0.974}
"""VLP table 6, "seen", and table 15: the paper's own data and pairs, so only of the same kind as ours."""

PAPER_ML45 = {"k-means labels": 0.970}
"""VLP table 18."""

PAPER_LANGUAGES = {
    "seen": {"ITP": 0.974, "IVP": 0.917},
    "phrase": {"ITP": 0.958, "IVP": 0.905},
    "description": {"ITP": 0.970, "IVP": 0.919},
    "correct_colour": {"ITP": 0.970, "IVP": 0.919},
    "incorrect_colour": {"ITP": 0.970, "IVP": 0.918},
}
"""VLP table 6, of the paper's own sentences."""


@dataclass(frozen=True)
class Config:
    """Which model, judged on what."""

    checkpoint: Path | None = None
    data: Path = Path("data/graded-0")
    cache: Path = Path("data/cache")
    split: str = "paper"
    n_pairs: int = 4000
    device: str = "auto"
    results: Path = RESULTS
    name: str = "preference_model"
    """What the JSON is called; only the bundled model's has others beside it, of levels and of other sentences."""
    method: str = "bundled VLP"
    """What the rows are called."""

    def __post_init__(self) -> None:
        """Refuse to write another model's figures, or other tasks', over those of the bundled one."""
        others = self.checkpoint is not None or self.split != "paper"
        if others and (self.name, self.results) == ("preference_model", RESULTS):
            raise ValueError(
                "results/preference_model.json is of the bundled model on the five unseen tasks; give another model "
                "or split a --name and a --method of its own"
            )


def measure(config: Config) -> list[Record]:
    """Evaluate the model and write its records, one a task and one for the mean."""
    names = find_split(config.split).test
    if not all((config.data / f"{name}.npz").exists() for name in names):
        collect(CollectConfig(out=config.data, tasks=names))
    started = time.perf_counter()
    result = evaluate(
        EvaluateConfig(
            checkpoint=config.checkpoint,
            data=config.data,
            cache=config.cache,
            split=config.split,
            n_pairs=config.n_pairs,
            device=config.device,
        )
    )
    seconds = time.perf_counter() - started
    judged = f"trained on data {result.about['fingerprint']}"
    scale = f"{config.n_pairs} pairs a figure, of k-means {result.about['paper_pairs']}; unseen sentences; {judged}"
    figures = {**{task.task_name: asdict(task) for task in result.tasks}, "mean": result.mean}

    def rows(shown: Mapping[str, str], paper: Mapping[str, float]) -> list[Record]:
        return [
            Record.now(
                task=name,
                method=config.method,
                metrics={
                    heading: float(values[key])
                    for key, heading in shown.items()
                    if values[key] is not None
                },
                seconds=seconds / len(figures),
                seed=0,
                scale=scale,
                paper=dict(paper) if name == "mean" else {},
            )
            for name, values in figures.items()
        ]

    records = rows(SHOWN, paper_of(config))
    write_records(config.name, records, config.results)
    if config.name != "preference_model":
        return records
    levels = rows(LEVELS, {})
    write_records("levels", levels, config.results)
    languages = [
        Record.now(
            task="mean",
            method=language.replace("_", " "),
            metrics={
                "ITP": left.itp,
                "most lost in a task": max(
                    task.languages["unseen"].itp - task.languages[language].itp
                    for task in result.tasks
                ),
                "IVP": left.ivp,
            },
            seconds=seconds / len(result.mean_languages),
            seed=0,
            scale=f"{config.n_pairs} pairs a sentence; {judged}",
            paper=PAPER_LANGUAGES.get(language, {}),
        )
        for language, left in result.mean_languages.items()
    ]
    write_records("languages", languages, config.results)
    return records + levels + languages


def paper_of(config: Config) -> dict[str, float]:
    """Return what the paper prints for a split's mean; nothing for tasks that it does not hold out."""
    return {"paper": PAPER, "ml45": PAPER_ML45}.get(config.split, {})


if __name__ == "__main__":
    measure(tyro.cli(Config))
