"""What Gymnasium keeps of an id that is made both one by one and as a vector."""

from dataclasses import dataclass, fields
from typing import Any

from gymnasium.envs.registration import EnvSpec


@dataclass(eq=False)
class SpecOfBoth(EnvSpec):
    """A spec with wrappers around the time limit and a vector entry point.

    `gym.make_vec` refuses an id that has both, although it applies no wrappers to what the entry point makes. It looks
    at a deep copy of the spec and `gym.make` at the spec itself, so the copy has no wrappers. Nor have, then, the
    independent envs that `gym.make_vec(..., vectorization_mode="sync")` makes.
    """

    @classmethod
    def of(cls, spec: EnvSpec) -> "SpecOfBoth":
        """Return the same spec as one of this kind."""
        return cls(**_arguments(spec))

    def __eq__(self, other: object) -> bool:
        """Return whether the other spec says the same, of this kind or plain: what JSON brings back is plain."""
        return isinstance(other, EnvSpec) and _arguments(self) == _arguments(other)

    __hash__ = None  # type: ignore[assignment]  # as of every spec

    def __deepcopy__(self, memo: dict[int, Any]) -> EnvSpec:
        """Return a plain spec without the wrappers."""
        given = _arguments(self)
        return EnvSpec(**{**given, "kwargs": dict(given["kwargs"]), "additional_wrappers": ()})


def _arguments(spec: EnvSpec) -> dict[str, Any]:
    return {each.name: getattr(spec, each.name) for each in fields(spec) if each.init}
