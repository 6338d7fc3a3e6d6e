"""A scorer as the command line of a benchmark names it."""

import shlex
from typing import Any, NamedTuple

from vlp_gym.scorers import SCORERS, parse_settings

STAND_IN = "stand-in"
"""Part of the name of what stands in for a model of the paper; no number of the paper is set beside it."""


class ScorerWords(NamedTuple):
    """Name, checkpoint and settings of a scorer."""

    name: str
    checkpoint: str | None
    settings: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "ScorerWords":
        """Return what a text names.

        >>> ScorerWords.read("vlmrm checkpoint=clip.safetensors alpha=0.5")
        ScorerWords(name='vlmrm', checkpoint='clip.safetensors', settings=('alpha=0.5',))

        Raises:
            SettingError: a word after the first is not NAME=VALUE.
        """
        name, *words = shlex.split(text)
        parse_settings(words)
        checkpoint = next((w.partition("=")[2] for w in words if w.startswith("checkpoint=")), None)
        settings = tuple(word for word in words if not word.startswith("checkpoint="))
        return cls(name, checkpoint, settings)

    @property
    def is_stand_in(self) -> bool:
        """Whether our own encoder stands in for the published weights."""
        return self.checkpoint == "bundled"

    @property
    def printed(self) -> str:
        """What VLP's tables call the scorer: its name, of VLM-RM with its alpha.

        >>> ScorerWords.read("vlmrm alpha=1").printed
        'vlmrm:1.0'
        """
        if self.name != "vlmrm":
            return self.name
        return f"vlmrm:{float(self.values.get('alpha', 0.0))}"

    @property
    def values(self) -> dict[str, Any]:
        """The settings, read."""
        return parse_settings(self.settings)


def check_scorers(scorers: tuple[str, ...]) -> None:
    """Refuse scorers that there are none of.

    Raises:
        ValueError: an unknown name.
    """
    names = [ScorerWords.read(each).name for each in scorers]
    if not set(names) <= set(SCORERS):
        raise ValueError(f"scorers must be of {', '.join(SCORERS)}; got {', '.join(names)}")
