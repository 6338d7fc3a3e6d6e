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
from agents.iql import advantage_weight, expectile_loss
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


def regularizer(
    reward: Float[Tensor, "seeds members rows"], n_labelled: int
) -> Float[Tensor, " seeds"]:
    """Return the mean squared implied reward (IPL eq. 7); with replay, the mean of both sources' means.

    Args:
        reward: implied rewards; the first `n_labelled` rows are of the pairs, the others of the replay.
        n_labelled: see above.
    """
    return balanced(torch.square(reward).mean(1), n_labelled)


def balanced(each: Float[Tensor, "seeds rows"], n_labelled: int) -> Float[Tensor, " seeds"]:
    """Return the mean over the rows of the pairs, averaged with that over the rows of a replay if there is one."""
    labelled = each[:, :n_labelled].mean(-1)
    if n_labelled == each.shape[1]:
        return labelled
    return 0.5 * labelled + 0.5 * each[:, n_labelled:].mean(-1)


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

    def update(self) -> dict[str, Float[Tensor, " seeds"]]:
        """Take one step on V, then on Q and the actor; return what they measured."""
        config, batch = self.config, self._pairs.at(self.step)
        obs, action, _ = transitions_of(batch)
        n_labelled = obs.shape[1]
        others = None if self._replay is None else self._replay.at(self.step)
        if others is not None:
            obs, action = torch.cat([obs, others[0]], 1), torch.cat([action, others[1]], 1)
        obs_action = torch.cat([obs, action], -1)

        with torch.no_grad():
            target_q = self.target(obs_action).squeeze(-1).amin(1)
        value = self.value(obs).flatten(1)
        gap = expectile_loss(target_q - value, config.expectile)
        loss_v = by_seed(balanced, gap, n_labelled=n_labelled)
        learning.descend(loss_v, self.optimizers["value"])

        with torch.no_grad():
            value_now, next_value = self._values(batch.obs, others)
            if config.clip_targets:
                limit = 1 / (config.regularization * (1 - config.discount))
                next_value = next_value.clamp(-limit, limit)
        q = self.critic(obs_action).squeeze(-1)
        reward = implied_reward(q, next_value, config.discount)
        # Axes: seed, member, first or second, pair, step.
        of_step = reward[..., :n_labelled].view(*reward.shape[:2], 2, batch.label.shape[1], -1)
        first, second = of_step.sum(-1).unbind(2)
        label, weight = (each.unsqueeze(1).expand_as(first) for each in (batch.label, batch.weight))
        loss_preference = by_seed(preference_loss, second - first, label, weight)
        loss_reward = config.regularization * by_seed(regularizer, reward, n_labelled=n_labelled)

        advantage = target_q - value_now
        settings = {"temperature": config.temperature, "limit": config.weight_limit}
        weights = by_seed(advantage_weight, advantage, **settings)
        log_prob = self.actor.log_prob(self.actor(obs), action)
        loss_actor = -by_seed(balanced, weights * log_prob, n_labelled=n_labelled)
        loss = loss_preference + loss_reward + loss_actor
        learning.descend(loss, self.optimizers["critic"], self.optimizers["actor"])
        polyak_update(self.target, self.critic, config.polyak)
        self.step += 1
        accuracy = learning.label_accuracy((second - first).mean(1), batch.label, batch.weight)
        return {
            "value_loss": loss_v.detach(), "preference_loss": loss_preference.detach(),
            "regularizer": loss_reward.detach(), "actor_loss": loss_actor.detach(), "label_accuracy": accuracy,
            "advantage": advantage.mean(-1), "reward": reward.detach().flatten(1).mean(-1),
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
