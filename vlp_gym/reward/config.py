"""Configs of the reward ensemble: its shape, and how it is fitted. Imports nothing heavy."""

from dataclasses import dataclass

from vlp_gym.errors import UnknownNameError

REWARD_NORMS = ("none", "zscore")
"""How the learned reward is scaled before it is paid, see `EnsembleConfig.reward_norm`."""


@dataclass(frozen=True)
class EnsembleConfig:
    """Shape of the reward ensemble; values of PEBBLE (BPref reward_model.py) unless marked ours."""

    members: int = 3
    """Networks, each with its own initial weights and its own shuffles."""
    width: int = 256
    """Units of a hidden layer."""
    depth: int = 3
    """Hidden layers, LeakyReLU between them, tanh at the end."""
    normalize_obs: bool = True
    """Standardise observations by the labelled segments before every fit (ours; PEBBLE feeds raw
    ones). Meta-World moves things by centimetres: raw inputs need far more updates."""
    reward_norm: str = "zscore"
    """What is paid. "none": the mean of the members, in [-1, 1], as PEBBLE does. "zscore" (ours): the
    same shifted and scaled to mean 0 and deviation 1 over the labelled segments after each fit.
    Labels fix a reward only up to a shift, and soft ones keep it small: far below the entropy bonus
    that SAC starts with and takes half of a short run to let go of."""

    def __post_init__(self) -> None:
        """Refuse a shape that no network has."""
        for name in ("members", "width", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"EnsembleConfig.{name} must be 1 or more, got {getattr(self, name)}"
                )
        if self.reward_norm not in REWARD_NORMS:
            raise UnknownNameError.of("reward_norm", self.reward_norm, list(REWARD_NORMS))


@dataclass(frozen=True)
class FitConfig:
    """One fit of the ensemble to all labels so far; values of PEBBLE unless marked ours."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    batch: int = 128
    """Pairs an update."""
    max_epochs: int = 50
    """Passes over all labels, at most (BPref: 10 to 50)."""
    max_updates: int | None = 50
    """Updates a fit, at most: bounds its time however many labels there are (ours). None: all."""
    stop_accuracy: float = 0.97
    """Stop after an epoch in which the members agreed with more than this share of the labels."""
    steps_sampled: int | None = 5
    """Steps of a segment that an update looks at, one drawn from each of as many equal parts and
    scaled up to the whole (ours: at 50 steps, an update in a tenth of the time). None: all."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); 0 is PEBBLE's Adam. Meant for noisy labels; not measured."""
    label_smoothing: float = 0.0
    """Share of every label that is replaced by 0.5. Meant for noisy labels; not measured."""
    crop: int = 0
    """SURF's temporal crops: an update sees both segments of a pair cut down by up to so many steps, by one random
    length and each at its own random place (SURF: 10, and labelled segments of 60). 0: none."""
    pseudo_ratio: int = 0
    """SURF's pseudo-labels: pairs without a label an update draws for each one with (SURF: 4). 0: none."""
    pseudo_threshold: float = 0.99
    """A member labels such a pair itself where it gives one side more than this probability (SURF)."""
    pseudo_weight: float = 1.0
    """What pseudo-labels count against labels (SURF)."""

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        for name in ("batch", "max_epochs", "max_updates", "steps_sampled"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"FitConfig.{name} must be 1 or more, got {value}")
        if not self.lr > 0 or self.weight_decay < 0:
            raise ValueError(
                "FitConfig needs lr > 0 and weight_decay >= 0, "
                f"got {self.lr} and {self.weight_decay}"
            )
        if self.crop < 0 or self.pseudo_ratio < 0 or self.pseudo_weight < 0:
            raise ValueError(
                "FitConfig needs crop, pseudo_ratio and pseudo_weight of 0 or more, "
                f"got {self.crop}, {self.pseudo_ratio} and {self.pseudo_weight}"
            )
        if not 0.5 <= self.pseudo_threshold < 1:
            raise ValueError(
                f"FitConfig.pseudo_threshold must lie in [0.5, 1), got {self.pseudo_threshold}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"FitConfig.label_smoothing must lie in [0, 1), got {self.label_smoothing}"
            )
