"""Scorers: how well does a clip follow a task?"""

import json
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from vlp_gym.errors import SettingError, UnknownNameError

SCORERS = {
    "vlp": "vlp_gym.scorers.vlp:VLPScorer",
    "clip": "vlp_gym.scorers.clip:ClipScorer",
    "vlmrm": "vlp_gym.scorers.clip:VLMRMScorer",
    "r3m": "vlp_gym.scorers.r3m:R3MScorer",
    "vip": "vlp_gym.scorers.vip:VIPScorer",
    "liv": "vlp_gym.scorers.liv:LIVScorer",
    "roboclip": "vlp_gym.scorers.roboclip:RoboCLIPScorer",
}
"""Scorers that have a name, and where each is; imported only when it is asked for.

Beside what `vlp_gym.types.Scorer` asks for, each tells its `name` with the hash of its weights; whether one score is of
a "frame" or a "clip" (`unit`); and how its frames are best drawn (`image_size_px`, `camera`, `preset`). One that tells
scenes apart returns itself without that from `of_one_scene`: labels ask for it.
"""


def load_scorer(
    name: str, checkpoint: Path | str | None = None, device: str = "auto", **settings: Any
) -> Any:
    """Return a scorer by name, with the weights of `checkpoint`.

    Args:
        name: one of `SCORERS`.
        checkpoint: folder of a VLP checkpoint (None: what the package ships), or the official file of another model
            (None: looked for, see `vlp_gym.models.official`); "bundled" is, for "clip" and "vlmrm", the encoder
            that the package ships, a stand-in for CLIP that was trained on Meta-World.
        device: where it runs, "auto" or as torch names it.
        settings: arguments of the scorer's own.

    Raises:
        UnknownNameError: no such scorer or setting.
        CheckpointError: the checkpoint is missing or damaged.
        MissingExtraError: the scorer needs a package that is not installed.
    """
    if name not in SCORERS:
        raise UnknownNameError.of("scorer", name, list(SCORERS))
    module, _, kind = SCORERS[name].partition(":")
    scorer = getattr(import_module(module), kind)
    known = [each for each in (*signature(scorer).parameters, *signature(scorer.load).parameters)]
    for setting in settings:
        if setting not in known:
            hidden = ("checkpoint", "device", "settings", "weights", "network", "towers", "words")
            raise UnknownNameError.of(
                f"setting of the scorer {name!r}",
                setting,
                [each for each in known if each not in hidden],
            )
    return scorer.load(checkpoint, device, **settings)


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return settings that a command line names, `NAME=VALUE` each; a value that is JSON is read as such.

    >>> parse_settings(["alpha=0.5", "baseline=a robot"])
    {'alpha': 0.5, 'baseline': 'a robot'}

    Raises:
        SettingError: a word has no equals sign.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise SettingError(f"a setting is NAME=VALUE, such as alpha=0.5, got {word!r}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
