"""Schedule of the feedback loop."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.queries import QUERIES
from vlp_gym.reward.config import EnsembleConfig, FitConfig

SCHEDULES = ("constant", "decreasing", "increasing")
"""How many queries a session has, see `FeedbackConfig.schedule`."""


@dataclass(frozen=True)
class FeedbackConfig:
    """When the labeler is asked, and about what; values of PEBBLE unless marked ours.

    Every field is plain JSON, so that it can stand in an env spec.
    """

    budget: int = 1_000
    """Queries in all. Hard: a query that was abstained from or failed was asked, and counts."""
    queries_per_session: int = 50
    """Queries of one feedback session; fewer in the last one if the budget ends there."""
    session_every: int = 5_000
    """Env steps between sessions, of all envs together (BPref: 5,000 on Meta-World)."""
    first_session: int | None = None
    """Env step of the first session; None: `session_every` (BPref: 10,000, after pre-training)."""
    schedule: str = "constant"
    """A name in `SCHEDULES`: `queries_per_session` at every session; or times the share of `total_steps` that is
    left; or divided by it (BPref's schedules 0, 1 and 2)."""
    total_steps: int | None = None
    """Env steps of the run, which a schedule that is not constant is stretched over."""
    segment_length: int = 50
    """Steps of a segment."""
    recent_episodes: int = 100
    """Episodes that queries are cut from: the latest ones, of all envs together."""
    query: str = "uniform"
    """A name in `QUERIES`. Pairs of uniform cuts; or of many such pairs those whose label the members disagree
    about most, or are least sure of, or whose observations lie farthest from all that was asked ("k-center"); or
    the latter among the better half of one of the former. The first session is uniform anyway: nothing has been
    learned yet."""
    candidates_per_query: int = 10
    """Pairs that a query other than uniform chooses one from."""
    pairs_per_segment: int = 1
    """Uniform queries that a segment is in (ours). A scorer draws and scores a segment once: with 2, labels cost half
    as much, and say less, since half as many segments are seen."""
    unsupervised: bool = False
    """Whether, before the first fit, a step is paid how new its state is (`StateEntropy`) instead of 0: PEBBLE's
    unsupervised pre-training. Give it time with `first_session`."""
    neighbours: int = 5
    """Which nearest neighbour tells how new a state is."""
    explore_bonus: float = 0.0
    """RUNE: the deviation of the members, times this, is added to what a step is paid (RUNE: 0.05). Both in the unit
    of `ensemble.reward_norm`."""
    explore_decay: float = 1e-5
    """Share of that bonus that is lost every env step (RUNE)."""
    unlabelled_per_query: int = 10
    """SURF: pairs without a label that a session draws for each query, if `fit.pseudo_ratio` asks for any."""
    soft_labels: bool | None = None
    """Whether a scorer's labels keep their probability or are rounded to 0 or 1. None: they keep it where differences
    of scores are log-odds, as VLP's (ours), and are rounded where they are not, as of similarities."""
    temperature: float = 1.0
    """A scorer's label is sigmoid(score difference / temperature); higher is softer."""
    tie_band: float = 0.0
    """Score differences smaller than this are labelled 0.5."""
    label_store: str | None = None
    """File in which a scorer's scores, or the labels of a labeler of your own, are kept as they come and looked up, so
    that nothing is asked twice; runs may share it."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    """Shape of the reward ensemble."""
    fit: FitConfig = field(default_factory=FitConfig)
    """One fit of it."""

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot run."""
        _check_counts(self)
        if self.query not in QUERIES:
            raise UnknownNameError.of("query", self.query, list(QUERIES))
        if self.query != "uniform" and self.pairs_per_segment > 1:
            raise ValueError(
                f"query {self.query!r} chooses among pairs of segments that are in no other; set "
                f"FeedbackConfig.pairs_per_segment to 1, got {self.pairs_per_segment}"
            )
        if self.schedule not in SCHEDULES:
            raise UnknownNameError.of("schedule", self.schedule, list(SCHEDULES))
        if self.schedule != "constant" and self.total_steps is None:
            raise ValueError(
                f"a schedule that is {self.schedule} is stretched over the run; say how long that is "
                "with FeedbackConfig.total_steps"
            )
        if self.starts_at < self.segment_length:
            raise ValueError(
                f"the first session is at step {self.starts_at}, before a segment of "
                f"{self.segment_length} steps exists; raise FeedbackConfig.first_session or lower "
                "FeedbackConfig.segment_length"
            )
        _check_amounts(self)

    @property
    def starts_at(self) -> int:
        """Env step of the first session."""
        return self.session_every if self.first_session is None else self.first_session

    def is_due(self, step: int) -> bool:
        """Return whether a session belongs after env step `step`, budget aside.

        >>> config = FeedbackConfig(session_every=100, first_session=300)
        >>> [step for step in range(600) if config.is_due(step)]
        [300, 400, 500]
        """
        return step >= self.starts_at and (step - self.starts_at) % self.session_every == 0

    def queries_at(self, step: int) -> int:
        """Return how many queries a session at env step `step` has, budget aside; 1 at least.

        >>> even = {"queries_per_session": 10, "total_steps": 100, "session_every": 50}
        >>> [FeedbackConfig(schedule="decreasing", **even).queries_at(step) for step in (50, 80, 100)]
        [5, 2, 1]
        >>> [FeedbackConfig(schedule="increasing", **even).queries_at(step) for step in (50, 81, 100)]
        [19, 50, 1000]
        """
        if self.schedule == "constant":
            return self.queries_per_session
        assert self.total_steps is not None
        left = max(0, self.total_steps - step)
        if self.schedule == "decreasing":
            return max(1, self.queries_per_session * left // self.total_steps)
        return self.queries_per_session * self.total_steps // (left + 1)

    def bonus_at(self, step: int) -> float:
        """Return the weight of the members' deviation after env step `step` (RUNE eq. 4).

        >>> FeedbackConfig(explore_bonus=0.05).bonus_at(0)
        0.05
        """
        return self.explore_bonus * float((1 - self.explore_decay) ** step)

    @classmethod
    def of(cls, values: "FeedbackConfig | Mapping[str, Any] | None") -> "FeedbackConfig":
        """Return the config of a (JSON) mapping; what it does not name keeps its default.

        >>> FeedbackConfig.of({"budget": 200, "fit": {"lr": 0.001}}).fit.lr
        0.001

        Raises:
            UnknownNameError: a name that is no field.
        """
        if isinstance(values, FeedbackConfig):
            return values
        given = dict(values or {})
        for name, part in (("ensemble", EnsembleConfig), ("fit", FitConfig)):
            if isinstance(given.get(name), Mapping):
                _check_names(part, given[name], f"{name} field")
                given[name] = part(**given[name])
        _check_names(cls, given, "feedback field")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON, such that `FeedbackConfig.of` gives it back."""
        return asdict(self)


def _check_names(config: type, given: Mapping[str, Any], what: str) -> None:
    known = [each.name for each in fields(config)]
    for name in given:
        if name not in known:
            raise UnknownNameError.of(what, name, known)


def _check_counts(config: FeedbackConfig) -> None:
    counts = ("queries_per_session", "session_every", "segment_length", "recent_episodes")
    more = (
        "pairs_per_segment", "candidates_per_query", "neighbours", "unlabelled_per_query", "total_steps"
    )  # fmt: skip
    for name in (*counts, *more):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"FeedbackConfig.{name} must be 1 or more, got {value}")
    if config.budget < 0:
        raise ValueError(f"FeedbackConfig.budget must be 0 or more, got {config.budget}")


def _check_amounts(config: FeedbackConfig) -> None:
    if not config.temperature > 0 or config.tie_band < 0:
        raise ValueError(
            "FeedbackConfig needs temperature > 0 and tie_band >= 0, got "
            f"{config.temperature} and {config.tie_band}"
        )
    if config.explore_bonus < 0 or not 0 <= config.explore_decay < 1:
        raise ValueError(
            "FeedbackConfig needs explore_bonus >= 0 and explore_decay in [0, 1), got "
            f"{config.explore_bonus} and {config.explore_decay}"
        )
