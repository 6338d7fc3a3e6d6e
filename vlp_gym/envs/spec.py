"""What Gymnasium keeps of an id that is made both one by one and as a vector."""

from dataclasses import dataclass, fields
from typing import Any

from gymnasium.envs.registration import EnvSpec


@dataclass
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

    def __deepcopy__(self, memo: dict[int, Any]) -> EnvSpec:
        """Return a plain spec without the wrappers."""
        given = _arguments(self)
        return EnvSpec(**{**given, "kwargs": dict(given["kwargs"]), "additional_wrappers": ()})


def _arguments(spec: EnvSpec) -> dict[str, Any]:
    return {each.name: getattr(spec, each.name) for each in fields(spec) if each.init}
