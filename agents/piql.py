"""P-IQL: a reward network learned from labelled pairs, and IQL paid by it, both at the same time.

`python -m agents.piql --pairs data/mtvlp-0/ButtonPress.labels.parquet --seeds 0 1 2`. The details are those of
research/algs/piql.py in jhejna/cpl: transitions come from the segments of the pairs, the reward is learned for the
first `reward_steps` and then stands still, IQL runs from the first step on the moving reward.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from agents import learning, offline
from agents.iql import IQLConfig, IQLCore, RewardNorm, normalised
from agents.learning import by_seed
from agents.networks import StackedMLP, adam
from agents.offline_options import PairOptions, read_pairs, read_replay
from agents.pair_batches import PairBatch, PairSampler, ReplaySampler, transitions_of
from agents.perceptrons import Trace
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.transitions import Transitions
from vlp_gym.models.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class Config(PairOptions):
    """One run of P-IQL; values of jhejna/cpl configs/mw_state_dense/piql.yaml."""

    steps: int = 500_000
    """Gradient steps."""
    batch_size: int = 96
    """Pairs."""
    reward_steps: int = 50_000
    """Steps after which the reward stands still; 20,000 in IPL's own P-IQL."""
    reward_hidden: tuple[int, ...] = (512, 512)
    """Units of every hidden layer of the reward; its output is linear."""
    reward_norm: RewardNorm = "none"
    """What is done to the rewards of a batch before IQL sees them. Pairs fix a reward only up to a constant a step,
    and official is to do nothing about it."""
    replay: Path | None = None
    """Trajectories without labels, a `<Task>.npz` of `vlp collect`: then IQL learns from all of them, paid by the
    reward, and not from the segments of the pairs alone. For few labels, as in VLP."""
    replay_batch_size: int = 256
    """Transitions of them (Kostrikov et al.)."""
    iql: IQLConfig = field(default_factory=IQLConfig)


def preference_loss(
    logit: Float[Tensor, "seeds members pairs"],
    label: Float[Tensor, "seeds pairs"],
    weight: Float[Tensor, "seeds pairs"],
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds members pairs"]]:
    """Return the cross-entropy of labels under Bradley-Terry (VLP eq. 1-2), and its gradient by the logits.

    Args:
        logit: how much more the second segment is worth: the difference of its sum of rewards to the first's.
        label: probability that the second is preferred.
        weight: how much a pair counts in the mean over pairs and members; a pair of weight 0 does not at all.
    """
    total = weight.sum(-1, keepdim=True) * logit.shape[1]
    share = (weight / torch.where(total > 0, total, 1.0)).unsqueeze(1)
    label = label.unsqueeze(1).expand_as(logit)
    each = by_seed(binary_cross_entropy_with_logits, logit, label, reduction="none")
    return (each * share).sum((1, 2)), (by_seed(torch.sigmoid, logit) - label) * share


class PIQL:
    """P-IQL on labelled pairs, and on unlabelled transitions.

    Args:
        config: the run.
        data: the pairs.
        replay: what IQL learns from; None: the segments of the pairs.
    """

    method = "P-IQL"

    def __init__(
        self, config: Config, data: Comparisons, replay: Transitions | None = None
    ) -> None:
        self.config, self.device = config, resolve_device(config.device)
        obs_dim, action_dim = data.obs.shape[-1], data.action.shape[-1]
        self.core = IQLCore(
            config.iql, config.seeds, obs_dim, action_dim, config.steps, self.device
        )
        widths = (obs_dim + action_dim, *config.reward_hidden, 1)
        self.reward = StackedMLP(config.seeds, "reward", widths).to(self.device)
        self.networks = nn.ModuleDict({**self.core.networks, "reward": self.reward})
        rate = config.iql.learning_rate
        self.optimizers = {**self.core.optimizers, "reward": adam(self.reward, rate)}
        self.step = 0
        self.about = learning.about_of(data)
        self._pairs = PairSampler(data, config.seeds, config.batch_size, self.device)
        self._replay: ReplaySampler | None = None
        if replay is not None:
            size = config.replay_batch_size
            self._replay = ReplaySampler(replay, data, config.seeds, size, self.device)

    @torch.no_grad()
    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one step on the reward, while it is learned, and one of IQL; return what they measured."""
        is_learned = self.step < self.config.reward_steps
        info = {}
        if is_learned or self._replay is None:
            batch = self._pairs.at(self.step)
            flat, trace = self.reward.traced(
                _inputs(batch.obs.flatten(1, 3), batch.action.flatten(1, 3))
            )
            reward = flat.view(batch.obs.shape[:-1])
            if is_learned:
                info = self._learn_reward(reward, batch, trace)
        if self._replay is None:
            obs, action, next_obs = transitions_of(batch)
            of_steps = reward[..., :-1].flatten(1)
        else:
            obs, action, next_obs = self._replay.at(self.step)
            of_steps = self.reward(_inputs(obs, action)).flatten(1)
        paid = by_seed(normalised, of_steps, norm=self.config.reward_norm)
        info |= self.core.improve(obs, action, paid, next_obs, self.step)
        self.step += 1
        return info

    def _learn_reward(
        self, reward: Float[Tensor, "seeds 2 pairs steps"], batch: PairBatch, trace: Trace
    ) -> dict[str, Float[Tensor, " seeds"]]:
        first, second = reward.sum(-1).unbind(1)
        logit = second - first
        loss, of_logit = preference_loss(logit.unsqueeze(1), batch.label, batch.weight)
        of_segments = torch.cat([-of_logit, of_logit], 1).unsqueeze(-1).expand_as(reward)
        self.reward.set_gradient(trace, of_segments.reshape(len(reward), 1, -1, 1))
        learning.adam_step(self.optimizers["reward"])
        accuracy = learning.label_accuracy(logit, batch.label, batch.weight)
        return {"reward_loss": loss, "label_accuracy": accuracy}

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return what the policy of one of the seeds does."""
        return self.core.actor.act(obs, seed)


def _inputs(
    obs: Float[Tensor, "seeds rows obs"], action: Float[Tensor, "seeds rows action"]
) -> Float[Tensor, "seeds rows both"]:
    return torch.cat([obs, action], -1)


def make(config: Config) -> PIQL:
    """Return an untrained agent of a config, its pairs read and checked."""
    return PIQL(config, read_pairs(config), read_replay(config.replay))


if __name__ == "__main__":
    offline.command_line(Config, make, __doc__)
