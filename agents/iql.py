"""IQL: offline reinforcement learning from a reward, without ever asking a value of an action that was not taken.

`python -m agents.iql --data data/mtvlp-0/ButtonPress.npz --seeds 0 1 2` learns from the simulator's reward: the
yardstick of what preferences are worth. `--scores FILE` pays what a vision-language model says instead. Implicit
Q-Learning is Kostrikov et al., 2021; the details are those of jhejna/cpl and jhejna/inverse-preference-learning (`IPL`
below), on whose update P-IQL builds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents import learning, offline
from agents.draws import Batches, Dropout
from agents.learning import by_seed
from agents.networks import Actor, ActorKind, StackedMLP, adam, polyak_update
from agents.offline_options import Options, read_trajectories
from agents.pair_batches import on
from vlp_gym.data.transitions import Transitions
from vlp_gym.labelers.regret import ValueFunction
from vlp_gym.models.device import resolve_device
from vlp_gym.training.scored_steps import paid_by

RewardNorm = Literal["none", "zscore", "minmax"]


@dataclass(frozen=True)
class IQLConfig:
    """The update of IQL; values of jhejna/cpl configs/mw_state_dense/piql.yaml unless another source is named."""

    expectile: float = 0.7
    """Which expectile of Q the value is; IPL has 0.75 on Meta-World."""
    temperature: float = 0.3333
    """Divides advantages in the weight of an action."""
    weight_limit: float = 100.0
    """Largest weight of an action."""
    discount: float = 0.99
    polyak: float = 0.005
    """Share of the critic that moves into its target each step."""
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (512, 512)
    """Units of every hidden layer, of all networks."""
    dropout: float = 0.25
    """Of the actor only."""
    actor: ActorKind = "deterministic"
    decay: bool = True
    """The actor's learning rate falls to 0 over the run, on a cosine."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """One run of IQL; as many seeds as are named, together."""

    data: Path
    """A `<Task>.npz` of `vlp collect`, or `minari:ID`."""
    scores: Path | None = None
    """What a scorer says of every step, a file of `vlp score`: then it pays, not the simulator (VLP, table 3)."""
    behaviours: tuple[str, ...] = ()
    """Only episodes of these behaviours; empty: of all."""
    steps: int = 500_000
    """Gradient steps; 1,000,000 in Kostrikov et al."""
    batch_size: int = 256
    """Transitions (Kostrikov et al.)."""
    reward_norm: RewardNorm = "none"
    """What is done to the reward of the data set before learning; official: nothing."""
    iql: IQLConfig = field(default_factory=IQLConfig)


def asymmetry(gap: Float[Tensor, "*rows"], expectile: float) -> Float[Tensor, "*rows"]:
    """Return |expectile - 1(gap < 0)| of every row."""
    return torch.abs(expectile - (gap < 0).to(gap.dtype))


def value_loss(
    value: Float[Tensor, "seeds rows"],
    target_q: Float[Tensor, "seeds rows"],
    share: Float[Tensor, " rows"] | float,
    expectile: float,
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds rows"]]:
    """Return the loss of V, |expectile - 1(gap < 0)| gap^2 of the gap target - V (IQL eq. 5), and its gradient by V.

    Args:
        value: V(s).
        target_q: the smaller of the target critics' Q(s, a).
        share: what every row counts; 1 / rows for a mean.
        expectile: in (0, 1).
    """
    gap = target_q - value
    pull = asymmetry(gap, expectile) * share * gap
    return (pull * gap).sum(-1), -2 * pull


def advantage_weight(
    advantage: Float[Tensor, "*rows"], temperature: float, limit: float
) -> Float[Tensor, "*rows"]:
    """Return exp(advantage / temperature), at most `limit` (IQL eq. 7)."""
    return torch.exp(advantage / temperature).clamp(max=limit)


def critic_loss(
    q: Float[Tensor, "seeds members rows"],
    reward: Float[Tensor, "seeds rows"],
    next_value: Float[Tensor, "seeds rows"],
    discount: float,
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds members rows"]]:
    """Return the loss of Q against r + discount V(s') (IQL eq. 6), mean over critics and rows, and its gradient."""
    gap = q - (reward + discount * next_value).unsqueeze(1)
    return torch.square(gap).mean((1, 2)), gap * (2 / gap[0].numel())


def normalised(reward: Float[Tensor, "*any rows"], norm: RewardNorm) -> Float[Tensor, "*any rows"]:
    """Return rewards with mean 0 and deviation 1, from 0 to 1, or as they are; along the last axis."""
    if norm == "zscore":
        spread, mean = torch.std_mean(reward, -1, correction=0, keepdim=True)
        return (reward - mean) / spread.clamp_min(1e-6)
    if norm == "minmax":
        low, high = reward.amin(-1, keepdim=True), reward.amax(-1, keepdim=True)
        return (reward - low) / (high - low).clamp_min(1e-6)
    return reward


class IQLCore:
    """Networks and update of IQL for several seeds, whatever pays the transitions.

    Args:
        config: the update.
        seeds: which seeds.
        obs_dim: numbers of an observation.
        action_dim: numbers of an action.
        steps: gradient steps of the run, over which the actor's learning rate falls.
        device: where it is computed.
    """

    def __init__(
        self,
        config: IQLConfig,
        seeds: Sequence[int],
        obs_dim: int,
        action_dim: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self.config, self._steps = config, steps
        dropout = Dropout(seeds, config.dropout, device)
        both = (obs_dim + action_dim, *config.hidden, 1)
        self.actor = Actor(seeds, obs_dim, action_dim, config.hidden, config.actor, dropout)
        self.critic = StackedMLP(seeds, "critic", both, members=2)
        self.target = StackedMLP(seeds, "critic", both, members=2).requires_grad_(False)
        self.value = StackedMLP(seeds, "value", (obs_dim, *config.hidden, 1))
        self.networks = nn.ModuleDict({
            "actor": self.actor, "critic": self.critic, "target": self.target, "value": self.value,
        }).to(device)  # fmt: skip
        learned = ("actor", "critic", "value")
        self.optimizers = {
            name: adam(self.networks[name], config.learning_rate) for name in learned
        }

    @torch.no_grad()
    def improve(
        self,
        obs: Float[Tensor, "seeds rows obs"],
        action: Float[Tensor, "seeds rows action"],
        reward: Float[Tensor, "seeds rows"],
        next_obs: Float[Tensor, "seeds rows obs"],
        step: int,
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one gradient step on V and the actor, then on Q; return what they measured."""
        config, obs_action, share = self.config, torch.cat([obs, action], -1), 1 / obs.shape[1]
        target_q = self.target(obs_action).squeeze(-1).amin(1)
        value, trace = self.value.traced(obs)
        loss_v, of_value = value_loss(value.flatten(1), target_q, share, config.expectile)
        self.value.set_gradient(trace, of_value.view_as(value))
        learning.adam_step(self.optimizers["value"])

        # With V as it was before its step, as in the official code.
        advantage = target_q - value.flatten(1)
        settings = {"temperature": config.temperature, "limit": config.weight_limit}
        weight = by_seed(advantage_weight, advantage, **settings)
        loss_actor = self.actor.clone(obs, action, weight * share, step)
        if config.decay:
            rate = learning.cosine(config.learning_rate, step, self._steps)
            learning.set_learning_rate(self.optimizers["actor"], rate)
        learning.adam_step(self.optimizers["actor"])

        next_value = self.value(next_obs).flatten(1)
        q, trace = self.critic.traced(obs_action)
        q = q.squeeze(-1)
        loss_q, of_q = critic_loss(q, reward, next_value, config.discount)
        self.critic.set_gradient(trace, of_q.unsqueeze(-1))
        learning.adam_step(self.optimizers["critic"])
        polyak_update(self.target, self.critic, config.polyak)
        return {
            "value_loss": loss_v, "actor_loss": loss_actor, "critic_loss": loss_q,
            "advantage": advantage.mean(-1), "q": q.flatten(1).mean(-1), "reward": reward.mean(-1),
        }  # fmt: skip


class IQL:
    """IQL on the transitions of a data set.

    Args:
        config: the run.
        data: what is learned from.
    """

    method = "IQL"

    def __init__(self, config: Config, data: Transitions) -> None:
        self.device = resolve_device(config.device)
        dims = (data.obs.shape[-1], data.action.shape[-1])
        self.core = IQLCore(config.iql, config.seeds, *dims, config.steps, self.device)
        self.networks, self.optimizers = self.core.networks, self.core.optimizers
        self.step = 0
        self.about = learning.about_of(data)
        arrays = (data.obs, data.action, data.reward, data.next_obs)
        self._obs, self._action, reward, self._next_obs = (on(self.device, each) for each in arrays)
        self._reward = normalised(reward, config.reward_norm)
        self._batches = Batches(config.seeds, "transitions", len(data), config.batch_size)

    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one step and return what it measured, one number a seed, still on the device."""
        rows = on(self.device, self._batches.at(self.step))
        obs, action = self._obs[rows], self._action[rows]
        info = self.core.improve(obs, action, self._reward[rows], self._next_obs[rows], self.step)
        self.step += 1
        return info

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return what the policy of one of the seeds does."""
        return self.core.actor.act(obs, seed)

    def value_of(self, seed: int) -> ValueFunction:
        """Return V of one of the seeds: what regret is judged by."""
        return ValueFunction(*self.core.value.layers_of(seed))


def make(config: Config) -> IQL:
    """Return an untrained agent of a config, its data read and checked."""
    data = read_trajectories(str(config.data))
    if config.scores is not None:
        data = paid_by(config.scores, data)
    return IQL(config, Transitions.of_trajectories(data.with_behaviours(*config.behaviours)))


if __name__ == "__main__":
    offline.command_line(Config, make, __doc__)
