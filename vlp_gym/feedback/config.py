"""Schedule of the feedback loop."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vlp_gym.errors import UnknownNameError
from vlp_gym.reward.config import EnsembleConfig, FitConfig

QUERIES = ("uniform", "disagreement")
"""How pairs are chosen, see `FeedbackConfig.query`."""


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
    """Env steps between sessions (BPref: 5,000 on Meta-World)."""
    first_session: int | None = None
    """Env step of the first session; None: `session_every` (BPref: 10,000, after pre-training)."""
    segment_length: int = 50
    """Steps of a segment."""
    recent_episodes: int = 100
    """Episodes that queries are cut from: the latest ones."""
    query: str = "uniform"
    """A name in `QUERIES`: pairs of uniform cuts, or of many such pairs those whose label the members
    disagree about most. The first session is uniform either way: nothing has been learned yet."""
    candidates_per_query: int = 10
    """Pairs that disagreement chooses one from."""
    soft_labels: bool | None = None
    """Whether a scorer's labels keep their probability or are rounded to 0 or 1. None: they keep it where differences
    of scores are log-odds, as VLP's (ours), and are rounded where they are not, as of similarities."""
    temperature: float = 1.0
    """A scorer's label is sigmoid(score difference / temperature); higher is softer."""
    tie_band: float = 0.0
    """Score differences smaller than this are labelled 0.5."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    """Shape of the reward ensemble."""
    fit: FitConfig = field(default_factory=FitConfig)
    """One fit of it."""

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot run."""
        _check_counts(self)
        if self.query not in QUERIES:
            raise UnknownNameError.of("query", self.query, list(QUERIES))
        if self.starts_at < self.segment_length:
            raise ValueError(
                f"the first session is at step {self.starts_at}, before a segment of "
                f"{self.segment_length} steps exists; raise FeedbackConfig.first_session or lower "
                "FeedbackConfig.segment_length"
            )
        if not self.temperature > 0 or self.tie_band < 0:
            raise ValueError(
                "FeedbackConfig needs temperature > 0 and tie_band >= 0, got "
                f"{self.temperature} and {self.tie_band}"
            )

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
    for name in (*counts, "candidates_per_query"):
        if getattr(config, name) < 1:
            raise ValueError(
                f"FeedbackConfig.{name} must be 1 or more, got {getattr(config, name)}"
            )
    if config.budget < 0:
        raise ValueError(f"FeedbackConfig.budget must be 0 or more, got {config.budget}")
