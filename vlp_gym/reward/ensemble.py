"""The reward ensemble: several small networks, fitted to labels, whose mean is the reward."""

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vlp_gym.models.device import resolve_device
from vlp_gym.reward.config import EnsembleConfig, FitConfig
from vlp_gym.reward.loss import preference_loss
from vlp_gym.reward.network import StackedMLP
from vlp_gym.reward.preferences import Preferences

ROWS = 2048
"""Steps predicted at once: larger blocks leave the processor's cache and cost more a step."""
FEW_ROWS = 16
"""Steps up to which NumPy predicts faster on a CPU: those of one env, or of a vector."""
CLIP = 10.0
"""Largest standardised observation, in deviations: a number far outside the labels says no more."""
SCALE_ROWS = 8192
"""Steps from which `reward_norm="zscore"` takes mean and deviation."""


class RewardEnsemble:
    """Predicts the reward of a step: mean of tanh networks (PEBBLE), all computed in one go.

    Observations are standardised by the mean and deviation of the labelled segments, taken anew
    before every fit (`EnsembleConfig.normalize_obs`); numbers that never changed are only centred.

    Args:
        obs_dim: numbers of an observation.
        action_dim: numbers of an action.
        config: shape of the ensemble.
        seed: decides initial weights and shuffles.
        device: where it is computed, any name that torch knows, or "auto". A step's reward is
            faster on a CPU, long fits on an accelerator.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: EnsembleConfig | None = None,
        seed: int | np.random.SeedSequence = 0,
        device: str = "cpu",
    ) -> None:
        self.config = config or EnsembleConfig()
        self.device = resolve_device(device)
        sequence = (
            seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        )
        # Words of the sequence itself, not its children: spawning would change the caller's object.
        words = sequence.generate_state(self.config.members + 1, np.uint64)
        generators = [torch.Generator().manual_seed(int(word >> 1)) for word in words]
        self._step_draws, self._shuffles = generators[0], generators[1:]
        width_in = obs_dim + action_dim
        network = StackedMLP(width_in, self.config.width, self.config.depth, self._shuffles)
        self.network = network.to(self.device)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), FitConfig.lr, weight_decay=0)
        self._obs_dim = obs_dim
        # Actions lie in [-1, 1] and pass unchanged.
        self._center = torch.zeros(width_in, device=self.device)
        self._spread = torch.ones(width_in, device=self.device)
        self._reward_center, self._reward_spread = 0.0, 1.0

    def __call__(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, " steps"]:
        """Return the reward of each step, float32: the mean of the members, then `reward_norm`.

        Args:
            obs: observation before the action.
            action: action scaled to [-1, 1].
        """
        mean: NDArray[np.float32] = self.per_member(obs, action).mean(0)
        if self.config.reward_norm == "zscore":
            mean = (mean - np.float32(self._reward_center)) / np.float32(self._reward_spread)
        return mean

    def per_member(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, "members steps"]:
        """Return the reward of each step by each member, float32 in [-1, 1]."""
        if obs.shape[-1] != self._obs_dim:
            raise ValueError(
                f"this ensemble was made for observations of {self._obs_dim} numbers, "
                f"got an array of shape {obs.shape}"
            )
        rows = np.concatenate([obs, action], axis=-1, dtype=np.float32)
        if len(rows) <= FEW_ROWS and self.device.type == "cpu":
            return self.network.few_rows(self._standardized_few(rows))
        inputs = torch.from_numpy(rows)
        with torch.inference_mode():
            if len(inputs) <= ROWS:
                return _array(self._predict(inputs))
            blocks = [self._predict(block) for block in torch.split(inputs, ROWS)]
            return _array(torch.cat(blocks, -1))

    def deviation(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, " steps"]:
        """Return how far apart the members are about each step, float32, in the unit of what is paid (RUNE)."""
        apart: NDArray[np.float32] = self.per_member(obs, action).std(0)
        if self.config.reward_norm == "zscore":
            apart = apart / np.float32(self._reward_spread)
        return apart

    def _predict(self, inputs: Float[Tensor, "rows width"]) -> Float[Tensor, "members rows"]:
        rows = self._standardized(inputs.to(self.device))
        out: Tensor = self.network(rows.expand(self.config.members, *rows.shape))
        return out

    def _standardized(self, inputs: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        # In place, since what comes here is a copy already, and of all labels a large one.
        return inputs.sub_(self._center).div_(self._spread).clamp_(-CLIP, CLIP)

    def _standardized_few(
        self, rows: Float[np.ndarray, "rows width"]
    ) -> Float[np.ndarray, "rows width"]:
        # `_standardized` of rows on a CPU, to the bit: a step is paid before torch has begun.
        scaled = (rows - self._center.numpy()) / self._spread.numpy()
        bounded: NDArray[np.float32] = np.minimum(np.maximum(scaled, -CLIP), CLIP)
        return bounded

    def fit(
        self,
        preferences: Preferences,
        config: FitConfig | None = None,
        unlabelled: Preferences | None = None,
    ) -> dict[str, float]:
        """Fit to all labels so far, from the present weights on; return how it went.

        Soft labels are used as they are. Stops after `max_epochs`, `max_updates`, or an epoch whose
        accuracy, averaged over members and counted while training, passes `stop_accuracy`.

        Args:
            preferences: pairs with their labels.
            config: how to fit.
            unlabelled: pairs that members label themselves where they are sure (SURF), anew at every
                epoch, if `FitConfig.pseudo_ratio` asks for any; their labels are not looked at.

        Returns:
            "loss" and "accuracy" (ties left out, NaN if there are only ties) of the last epoch,
            "epochs", "updates" and "pairs"; with `unlabelled` also "pseudo_labels", the share of
            them that a member was sure about in the last epoch.
        """
        config = config or FitConfig()
        if not len(preferences):
            raise ValueError("a fit needs at least one label, got none; ask the labeler first")
        inputs = self._inputs(preferences)
        guesses = None
        if unlabelled is not None and len(unlabelled) and config.pseudo_ratio:
            guesses = Guesses(self._standardized(self._rows(unlabelled)), config)
        label = torch.from_numpy(np.asarray(preferences.label, np.float32)).to(self.device)
        for group in self._optimizer.param_groups:
            group["lr"], group["weight_decay"] = config.lr, config.weight_decay
        last, updates, epoch = Epoch(np.nan, np.nan, 0), 0, 0
        bound = sys.maxsize if config.max_updates is None else config.max_updates
        while epoch < config.max_epochs and updates < bound:
            if guesses is not None:
                guesses.renew(self.network)
            last = self._epoch(inputs, label, config, bound - updates, guesses)
            updates, epoch = updates + last.updates, epoch + 1
            if last.accuracy > config.stop_accuracy:
                break
        self._measure_scale(preferences)
        return {
            "loss": last.loss,
            "accuracy": last.accuracy,
            "epochs": float(epoch),
            "updates": float(updates),
            "pairs": float(len(preferences)),
            **({} if guesses is None else {"pseudo_labels": guesses.share}),
        }

    def _rows(self, preferences: Preferences) -> Float[Tensor, "pairs 2 steps width"]:
        obs, action = torch.from_numpy(preferences.obs), torch.from_numpy(preferences.action)
        return torch.cat([obs, action], -1).float().to(self.device)

    def _inputs(self, preferences: Preferences) -> Float[Tensor, "pairs 2 steps width"]:
        inputs = self._rows(preferences)
        if self.config.normalize_obs:
            spread, center = torch.std_mean(inputs[..., : self._obs_dim].flatten(0, 2), 0)
            self._center[: self._obs_dim] = center
            # A number that never changed carries no information yet: centred, not blown up.
            self._spread[: self._obs_dim] = torch.where(spread > 1e-6, spread, 1.0)
        return self._standardized(inputs)

    def _epoch(
        self,
        inputs: Float[Tensor, "pairs 2 steps width"],
        label: Float[Tensor, " pairs"],
        config: FitConfig,
        n_updates: int,
        guesses: "Guesses | None" = None,
    ) -> "Epoch":
        orders = [torch.randperm(len(label), generator=each) for each in self._shuffles]
        losses: list[float] = []
        right = decided = 0
        for picked in torch.split(torch.stack(orders).to(self.device), config.batch, dim=1):
            if len(losses) >= n_updates:
                break
            target = label[picked]
            first, second = self._reward(inputs, picked, config)
            smooth = target * (1 - config.label_smoothing) + 0.5 * config.label_smoothing
            loss = preference_loss(first, second, smooth)
            if guesses is not None:
                loss = loss + self._guessed(guesses, picked.shape[1], config)
            losses.append(self._update(loss))
            is_decided = target != 0.5
            prefers_second = (second - first).sum(-1) > 0
            right += int(((prefers_second == (target > 0.5)) & is_decided).sum())
            decided += int(is_decided.sum())
        accuracy = right / decided if decided else float("nan")
        return Epoch(float(np.mean(losses)), accuracy, len(losses))

    def _reward(
        self,
        inputs: Float[Tensor, "pairs 2 all_steps width"],
        picked: Int[Tensor, "members batch"],
        config: FitConfig,
    ) -> tuple[Float[Tensor, "members batch steps"], Float[Tensor, "members batch steps"]]:
        """Return what each member pays the first and the second segments of its batch."""
        rows, kept = self._drawn(inputs, picked, config)
        reward = self.network(rows.flatten(1, 3)).view(rows.shape[:-1])
        # The steps that were drawn stand for all that were kept.
        first, second = (reward * (kept / rows.shape[3])).unbind(2)
        return first, second

    def _drawn(
        self,
        inputs: Float[Tensor, "pairs 2 all_steps width"],
        picked: Int[Tensor, "members batch"],
        config: FitConfig,
    ) -> tuple[Float[Tensor, "members batch 2 steps width"], int]:
        """Return the steps that an update looks at, and how many steps they stand for."""
        kept = length = inputs.shape[2]
        starts = torch.zeros(1, dtype=torch.long)
        if config.crop:
            most = min(config.crop, length - 1)
            kept -= int(torch.randint(most + 1, (1,), generator=self._step_draws))
            shape = (*picked.shape, 2, 1)
            starts = torch.randint(length - kept + 1, shape, generator=self._step_draws)
        n_steps = min(config.steps_sampled or kept, kept)
        if n_steps == length:
            return inputs[picked], kept
        steps = torch.arange(n_steps)
        if n_steps < kept:
            offsets = torch.rand(n_steps, generator=self._step_draws)
            steps = ((steps + offsets) * (kept / n_steps)).long().clamp(max=kept - 1)
        sides = torch.arange(2, device=self.device)[:, None]
        return inputs[picked[..., None, None], sides, (starts + steps).to(self.device)], kept

    def _guessed(self, guesses: "Guesses", n_labels: int, config: FitConfig) -> Float[Tensor, ""]:
        n_drawn = config.pseudo_ratio * n_labels
        shape = (self.config.members, n_drawn)
        drawn = torch.randint(len(guesses.inputs), shape, generator=self._step_draws)
        picked = drawn.to(self.device)
        label, is_sure = guesses.label.gather(1, picked), guesses.is_sure.gather(1, picked)
        first, second = self._reward(guesses.inputs, picked, config)
        return config.pseudo_weight * preference_loss(first, second, label, is_sure)

    def _update(self, loss: Float[Tensor, ""]) -> float:
        self._optimizer.zero_grad()
        # Times members: each one gets the gradient of its own mean, as if it were alone.
        (loss * self.config.members).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.item()

    def _measure_scale(self, preferences: Preferences) -> None:
        if self.config.reward_norm == "none":
            return
        obs = preferences.obs.reshape(-1, preferences.obs.shape[-1])
        action = preferences.action.reshape(-1, preferences.action.shape[-1])
        stride = max(1, len(obs) // SCALE_ROWS)
        reward = self.per_member(obs[::stride], action[::stride]).mean(0)
        self._reward_center = float(reward.mean())
        self._reward_spread = max(float(reward.std()), 1e-6)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser, normalisation and random streams: arrays and numbers."""
        moments = self._optimizer.state_dict()["state"]
        return {
            "network": {name: _array(each) for name, each in self.network.state_dict().items()},
            "optimizer": {
                str(index): {name: _array(each) for name, each in entry.items()}
                for index, entry in moments.items()
            },
            "center": _array(self._center),
            "spread": _array(self._spread),
            "reward_center": self._reward_center,
            "reward_spread": self._reward_spread,
            "shuffles": np.stack([_array(each.get_state()) for each in self._shuffles]),
            "step_draws": _array(self._step_draws.get_state()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an ensemble of the same shape."""
        self.network.load_state_dict(
            {name: torch.from_numpy(each.copy()) for name, each in state["network"].items()}
        )
        moments = {
            int(index): {name: torch.from_numpy(each.copy()) for name, each in entry.items()}
            for index, entry in state["optimizer"].items()
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._center.copy_(torch.from_numpy(state["center"]))
        self._spread.copy_(torch.from_numpy(state["spread"]))
        self._reward_center = float(state["reward_center"])
        self._reward_spread = float(state["reward_spread"])
        for generator, words in zip(self._shuffles, state["shuffles"], strict=True):
            generator.set_state(torch.from_numpy(words.copy()))
        self._step_draws.set_state(torch.from_numpy(state["step_draws"].copy()))


class Guesses:
    """Pairs without a label, and what each member makes of them (SURF's pseudo-labels).

    Args:
        inputs: standardised steps of the pairs.
        config: `pseudo_threshold` says how sure a member must be.

    Attributes:
        label: which side each member prefers, 0 or 1 [members, pairs].
        is_sure: 1 where it is sure, else 0 [members, pairs].
        share: mean of `is_sure`.
    """

    def __init__(self, inputs: Float[Tensor, "pairs 2 steps width"], config: FitConfig) -> None:
        self.inputs = inputs
        self._margin = math.log(config.pseudo_threshold / (1 - config.pseudo_threshold))
        self.label = self.is_sure = torch.zeros(0, 0)
        self.share = 0.0

    def renew(self, network: StackedMLP) -> None:
        """Let each member of the present network label all pairs."""
        members = len(network.weights[0])
        with torch.no_grad():
            rows = self.inputs.flatten(0, 2)
            blocks = [
                network(each.expand(members, *each.shape)) for each in torch.split(rows, ROWS)
            ]
            reward = torch.cat(blocks, -1).view(members, *self.inputs.shape[:3])
            logit = (reward[:, :, 1] - reward[:, :, 0]).sum(-1)
        self.label = (logit > 0).float()
        self.is_sure = (logit.abs() > self._margin).float()
        self.share = float(self.is_sure.mean())


class Epoch(NamedTuple):
    """How one pass over the labels went."""

    loss: float
    accuracy: float
    updates: int


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    return array
