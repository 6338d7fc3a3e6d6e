"""How scores of frames or clips become the reward of a step."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vlp_gym.errors import UnknownNameError

FORMS = ("step", "potential", "end")
"""Ways to pay, see `PayConfig.form`."""


@dataclass(frozen=True)
class PayConfig:
    """How an agent is paid by a scorer; plain JSON, so that it can stand in an env spec."""

    form: str | None = None
    """`step`: a step is paid the score of the frame after it (VLM-RM, R3M). `potential`: discount * that score - the
    score of the frame before (VIP and LIV, which have discount 1). `end`: 0 until the last step, which is paid the
    score of the episode: of its frames, if the scorer reads clips (RoboCLIP), else of its last frame. None: `end`
    where the scorer reads clips, `step` elsewhere."""
    add: bool = False
    """Whether the simulator's reward is paid as well."""
    weight: float = 1.0
    """What a score is multiplied by."""
    discount: float = 1.0
    """Of `potential`. With the agent's own discount, the optimal policies stay those of the simulator's reward that it
    is added to (Ng et al., 1999), but for the score of the last state."""

    def __post_init__(self) -> None:
        """Refuse what is no way to pay."""
        if self.form is not None and self.form not in FORMS:
            raise UnknownNameError.of("form of pay", self.form, list(FORMS))
        if not 0 < self.discount <= 1:
            raise ValueError(f"PayConfig.discount must lie in (0, 1], got {self.discount}")

    @classmethod
    def of(cls, values: "PayConfig | Mapping[str, Any] | None") -> "PayConfig":
        """Return the config of a (JSON) mapping; what it does not name keeps its default.

        >>> PayConfig.of({"form": "potential"}).weight
        1.0

        Raises:
            UnknownNameError: a name that is no field.
        """
        if isinstance(values, PayConfig):
            return values
        known = [each.name for each in fields(cls)]
        for name in values or {}:
            if name not in known:
                raise UnknownNameError.of("field of pay", name, known)
        return cls(**(values or {}))
