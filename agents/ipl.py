"""IPL: preferences teach Q itself; the reward is whatever Q and V imply.

`python -m agents.ipl --pairs data/mtvlp-0/ButtonPress.labels.parquet --seeds 0 1 2`. Inverse Preference Learning is
Hejna and Sadigh, 2023; the details are those of research/algs/ipl_iql.py in jhejna/inverse-preference-learning, in its
variant on top of IQL.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents import learning, offline
from agents.iql import advantage_weight, value_loss
from agents.learning import by_seed
from agents.networks import Actor, ActorKind, StackedMLP, adam, polyak_update
from agents.offline_options import PairOptions, read_pairs, read_replay
from agents.pair_batches import PairSampler, ReplaySampler, Rows, transitions_of
from agents.piql import preference_loss
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.transitions import Transitions
from vlp_gym.models.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class Config(PairOptions):
    """One run of IPL; values of configs/metaworld/ipl_iql.yaml in jhejna/inverse-preference-learning."""

    steps: int = 200_000
    """Gradient steps."""
    batch_size: int = 16
    """Pairs."""
    window: int | None = 16
    """Steps cut from both segments of a pair, at a random place; None: whole segments."""
    regularization: float = 3.0
    """Weight of the squared implied reward (chi^2); 0.5 on locomotion."""
    expectile: float = 0.75
    temperature: float = 0.3333
    """Divides advantages in the weight of an action."""
    weight_limit: float = 100.0
    """Largest weight of an action."""
    discount: float = 0.99
    polyak: float = 0.005
    """Share of the critic that moves into its target each step."""
    clip_targets: bool = False
    """Keep V(s') within 1 / (regularization (1 - discount)); on for locomotion."""
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256, 256)
    actor: ActorKind = "gaussian"
    replay: Path | None = None
    """Trajectories without labels, a `<Task>.npz` of `vlp collect`; half of every loss but that of preferences."""
    replay_batch_size: int = 256
    """Transitions of them."""
    evaluate_every: int = 2_500
    evaluation_episodes: int = 20


def implied_reward(
    q: Float[Tensor, "seeds members rows"],
    next_value: Float[Tensor, "seeds rows"],
    discount: float,
) -> Float[Tensor, "seeds members rows"]:
    """Return r = Q(s, a) - discount V(s') (IPL eq. 5: the inverse Bellman operator)."""
    return q - discount * next_value.unsqueeze(1)


def shares(n_labelled: int, obs: Float[Tensor, "seeds rows obs"]) -> Float[Tensor, " rows"]:
    """Return what every row counts: all of the pairs together as much as all of a replay, if there is one.

    Args:
        n_labelled: the first so many rows are of the pairs, the others of the replay.
        obs: observations of the rows.
    """
    n_others = obs.shape[1] - n_labelled
    share = obs.new_full((obs.shape[1],), (0.5 if n_others else 1.0) / n_labelled)
    if n_others:
        share[n_labelled:] = 0.5 / n_others
    return share


def regularizer(
    reward: Float[Tensor, "seeds members rows"], share: Float[Tensor, " rows"]
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, "seeds members rows"]]:
    """Return the mean squared implied reward (IPL eq. 7), and its gradient."""
    pull = reward * (share / reward.shape[1])
    return (pull * reward).flatten(1).sum(-1), 2 * pull


class IPL:
    """IPL on labelled pairs, and unlabelled transitions beside them.

    Args:
        config: the run.
        data: the pairs.
        replay: transitions without labels, if there are any.
    """

    method = "IPL"

    def __init__(
        self, config: Config, data: Comparisons, replay: Transitions | None = None
    ) -> None:
        self.config, self.device = config, resolve_device(config.device)
        obs_dim, action_dim = data.obs.shape[-1], data.action.shape[-1]
        both = (obs_dim + action_dim, *config.hidden, 1)
        self.actor = Actor(config.seeds, obs_dim, action_dim, config.hidden, config.actor)
        self.critic = StackedMLP(config.seeds, "critic", both, members=2)
        self.target = StackedMLP(config.seeds, "critic", both, members=2).requires_grad_(False)
        self.value = StackedMLP(config.seeds, "value", (obs_dim, *config.hidden, 1))
        self.networks = nn.ModuleDict({
            "actor": self.actor, "critic": self.critic, "target": self.target, "value": self.value,
        }).to(self.device)  # fmt: skip
        learned = ("actor", "critic", "value")
        self.optimizers = {
            name: adam(self.networks[name], config.learning_rate) for name in learned
        }
        self.step = 0
        self.about = learning.about_of(data)
        self._pairs = PairSampler(data, config.seeds, config.batch_size, self.device, config.window)
        self._replay: ReplaySampler | None = None
        if replay is not None:
            size = config.replay_batch_size
            self._replay = ReplaySampler(replay, data, config.seeds, size, self.device)

    @torch.no_grad()
    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one step on V, then on Q and the actor; return what they measured."""
        config, batch = self.config, self._pairs.at(self.step)
        obs, action, _ = transitions_of(batch)
        n_labelled = obs.shape[1]
        others = None if self._replay is None else self._replay.at(self.step)
        if others is not None:
            obs, action = torch.cat([obs, others[0]], 1), torch.cat([action, others[1]], 1)
        obs_action, share = torch.cat([obs, action], -1), shares(n_labelled, obs)

        target_q = self.target(obs_action).squeeze(-1).amin(1)
        value, trace = self.value.traced(obs)
        loss_v, of_value = value_loss(value.flatten(1), target_q, share, config.expectile)
        self.value.set_gradient(trace, of_value.view_as(value))
        learning.adam_step(self.optimizers["value"])

        value_now, next_value = self._values(batch.obs, others)
        if config.clip_targets:
            limit = 1 / (config.regularization * (1 - config.discount))
            next_value = next_value.clamp(-limit, limit)
        q, trace = self.critic.traced(obs_action)
        reward = implied_reward(q.squeeze(-1), next_value, config.discount)
        loss_reward, of_reward = regularizer(reward, share)
        # Axes: seed, member, first or second, pair, step.
        of_steps = (*reward.shape[:2], 2, batch.label.shape[1], -1)
        first, second = reward[..., :n_labelled].view(of_steps).sum(-1).unbind(2)
        loss_preference, of_logit = preference_loss(second - first, batch.label, batch.weight)
        of_reward *= config.regularization
        of_segments = torch.stack([-of_logit, of_logit], 2).unsqueeze(-1)
        of_reward[..., :n_labelled].view(of_steps).add_(of_segments)
        self.critic.set_gradient(trace, of_reward.view_as(q))
        learning.adam_step(self.optimizers["critic"])

        advantage = target_q - value_now
        settings = {"temperature": config.temperature, "limit": config.weight_limit}
        weights = by_seed(advantage_weight, advantage, **settings)
        loss_actor = self.actor.clone(obs, action, weights * share)
        learning.adam_step(self.optimizers["actor"])
        polyak_update(self.target, self.critic, config.polyak)
        self.step += 1
        accuracy = learning.label_accuracy((second - first).mean(1), batch.label, batch.weight)
        return {
            "value_loss": loss_v, "preference_loss": loss_preference,
            "regularizer": config.regularization * loss_reward, "actor_loss": loss_actor, "label_accuracy": accuracy,
            "advantage": advantage.mean(-1), "reward": reward.flatten(1).mean(-1),
        }  # fmt: skip

    def _values(
        self, windows: Float[Tensor, "seeds 2 pairs steps obs"], others: Rows | None
    ) -> tuple[Float[Tensor, "seeds transitions"], Float[Tensor, "seeds transitions"]]:
        """Return V(s) and V(s') of all transitions; most states of a window are both, and V sees them once."""
        of_states = self.value(windows.flatten(1, 3)).view(windows.shape[:-1])
        value, next_value = of_states[..., :-1].flatten(1), of_states[..., 1:].flatten(1)
        if others is None:
            return value, next_value
        obs, _, next_obs = others
        return (
            torch.cat([value, self.value(obs).flatten(1)], 1),
            torch.cat([next_value, self.value(next_obs).flatten(1)], 1),
        )

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return what the policy of one of the seeds does."""
        return self.actor.act(obs, seed)


def make(config: Config) -> IPL:
    """Return an untrained agent of a config, its data read and checked."""
    return IPL(config, read_pairs(config), read_replay(config.replay))


if __name__ == "__main__":
    offline.command_line(Config, make, __doc__)
