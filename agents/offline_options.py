"""What a run of an offline agent is told: which data, which seeds, how it is evaluated; and the data themselves."""

from dataclasses import dataclass
from pathlib import Path

from agents.parallel_evaluation import Parallel
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.cpl import Mode
from vlp_gym.data.minari import read_minari
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.data.transitions import Transitions
from vlp_gym.feedback.table import LabelTable
from vlp_gym.training.pair_files import Unsure, check_segments, read_comparisons

MINARI = "minari:"
"""What the name of a Minari data set begins with, where a file could stand."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all offline agents have in common; evaluation is that of jhejna/cpl."""

    task: str | None = None
    """The task that policies are evaluated in; None: the one that the data name."""
    seeds: tuple[int, ...] = (0,)
    """Trained together, each with the result that it has alone."""
    steps: int = 500_000
    """Gradient steps."""
    evaluate_every: int = 5_000
    """Gradient steps between evaluations."""
    evaluation_episodes: int = 25
    """Episodes of an evaluation, for every seed."""
    max_episode_steps: int = 150
    """Steps of an episode; scripted experts succeed within 150 in every task, CPL has 250."""
    parallel: Parallel = "sync"
    """Where the envs of an evaluation live: in this process, or each in one of its own."""
    smoothing: int = 8
    """Evaluations that are averaged before their maximum is taken: the papers' number."""
    n_last: int = 4
    """Evaluations of `mean_of_last`: the number to trust."""
    checkpoint_every: int = 5_000
    """Gradient steps between checkpoints."""
    video_episodes: int = 1
    """Episodes of the final video of every seed; 0: no videos."""
    video_size_px: int = 320
    device: str = "auto"
    """Where networks run: auto, cpu, cuda."""
    threads: int | None = None
    """Threads of torch; None: its own choice."""
    out: Path | None = None
    """The run folder; None: a new one under runs/."""
    quiet: bool = False
    """No progress bar and no lines."""

    def __post_init__(self) -> None:
        """Refuse a run that would measure nothing, or one seed twice."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"name one seed or several different ones, got {self.seeds}")
        least = (
            "steps",
            "evaluate_every",
            "evaluation_episodes",
            "checkpoint_every",
            "smoothing",
            "n_last",
        )
        for name in least:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PairOptions(Options):
    """What agents that learn from labelled pairs have in common."""

    pairs: Path
    """A label table of `vlp label` or of a run, or a public `.npz` of CPL or IPL."""
    trajectories: Path | None = None
    """What the segments of a label table were cut from: then they are compared with it before training."""
    unsure: Unsure = "tie"
    """What becomes of pairs that the labeler abstained from: a tie, no weight, or left out."""
    score: str = "rl_sum"
    """Which score decides, in CPL's files of segments."""
    mode: Mode = "comparison"
    """How CPL's segments are paired."""
    n_segments: int | None = None
    """Of CPL's files the first so many segments (its dense data: 2,500 with mode `rank`); None: all."""
    flip: bool = False
    """Turn every label round, to see that the labels matter."""


def read_trajectories(name: str) -> Trajectories:
    """Return the trajectories of a file of `vlp collect`, or of the Minari data set `minari:ID`.

    Raises:
        CheckpointError: the file is missing or damaged.
        DataError: the Minari data set is none that can be learned from.
    """
    if name.startswith(MINARI):
        return read_minari(name.removeprefix(MINARI))
    return Trajectories.load(Path(name))


def read_replay(path: Path | None) -> Transitions | None:
    """Return the transitions of the trajectories that stand beside labelled pairs, if there are any."""
    if path is None:
        return None
    return Transitions.of_trajectories(read_trajectories(str(path)))


def read_pairs(config: PairOptions) -> Comparisons:
    """Return the pairs of a config, compared with their trajectories where those are named.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        DataError: nothing can be learned from the pairs as they are.
    """
    data = read_comparisons(
        config.pairs, config.unsure, config.score, config.mode, config.n_segments
    )
    if config.trajectories is not None:
        check_segments(LabelTable.load(config.pairs), read_trajectories(str(config.trajectories)))
    return data.flipped() if config.flip else data
