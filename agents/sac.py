"""SAC of Stable-Baselines3: its settings, a policy that keeps steady, and an untrained agent of them."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from agents.exploration import fading_noise


@dataclass(frozen=True)
class SacConfig:
    """SAC; values of Stable-Baselines3 unless another source is named."""

    width: int = 256
    """Units of a hidden layer."""
    depth: int = 2
    """Hidden layers; BPref has 3, which halves the speed on a CPU."""
    learning_rate: float = 3e-4
    batch_size: int = 256
    """Transitions a gradient step; BPref has 512."""
    learning_starts: int = 1_000
    """Steps of uniform random actions (BPref)."""
    train_freq: int = 1
    """Steps between trainings."""
    gradient_steps: int = 1
    """Gradient steps a training and env: several envs make no fewer of them."""
    gamma: float = 0.99
    """Discount."""
    polyak: float = 0.005
    """Share of the critic that moves into its target each gradient step."""
    initial_temperature: float = 0.1
    """Entropy coefficient at the start (BPref); it is learned from there."""
    target_entropy: float | None = None
    """Entropy that the coefficient keeps up; None: minus the number of action dimensions."""
    actor_average: float = 1e-3
    """Share of the actor that moves into an average of its weights each gradient step (ours). The average is what is
    evaluated: under a reward that keeps changing the latest weights are good by turns. 0: no average."""
    critic_norm: bool = True
    """Whether the hidden layers of the critics are normalised (LayerNorm, as in RLPD, arXiv 2302.02948): it bounds what
    they make of actions that nobody has tried, and they follow a reward that keeps changing."""
    buffer_size: int = 1_000_000
    """Transitions that the replay buffer keeps."""
    explore_steps: int = 6_000
    """Steps over which lasting exploration noise fades out (ours); 0: none."""
    explore_memory: float = 20.0
    """Steps after which that noise has forgotten itself."""
    use_sde: bool = False
    """State-dependent exploration (gSDE): noise that lasts `train_freq` steps."""
    sde_sample_freq: int = -1
    """Draws new noise after so many steps within `train_freq`; -1: never."""

    def __post_init__(self) -> None:
        """Refuse lasting noise that does not last, and an average of nothing."""
        if not 0 <= self.actor_average <= 1:
            raise ValueError(f"actor_average is a share, in [0, 1]; got {self.actor_average}")
        if self.use_sde and self.train_freq == 1:
            raise ValueError(
                "use_sde draws new noise before every training, and train_freq=1 trains after every "
                "step; set train_freq and gradient_steps to 8, for instance"
            )


class SteadyPolicy(SACPolicy):
    """SAC's policy that keeps steady under a reward that changes.

    Deterministic actions come from a moving average of the actor's weights, which is saved and loaded with them; it
    explores and learns with the weights themselves. The hidden layers of its critics are normalised.

    Args:
        args: as of `SACPolicy`.
        average: share of the actor that moves into the average each gradient step, in [0, 1]; 0: no average.
        critic_norm: whether critics are normalised.
        kwargs: as of `SACPolicy`.
    """

    def __init__(self, *args: Any, average: float, critic_norm: bool, **kwargs: Any) -> None:
        self._share, self._critic_norm = average, critic_norm
        self.average: Actor | None = None
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        if not self._share:
            return
        # Its first weights, which nobody sees, draw none of the run's random numbers.
        with torch.random.fork_rng(devices=[]):
            self.average = self.make_actor().requires_grad_(False)
        self.average.load_state_dict(self.actor.state_dict())
        self.actor.optimizer.register_step_post_hook(lambda *_: self._follow())

    def make_critic(
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> ContinuousCritic:
        """Return critics as SAC's, normalised where that was asked for."""
        critic = super().make_critic(features_extractor)
        if self._critic_norm:
            for number, network in enumerate(critic.q_networks):
                assert isinstance(network, nn.Sequential)
                critic.q_networks[number] = normalised(network)
                critic.add_module(f"qf{number}", critic.q_networks[number])
        return critic

    def _follow(self) -> None:
        assert self.average is not None
        polyak_update(self.actor.parameters(), self.average.parameters(), self._share)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        average = self.average if deterministic else None
        actor = self.actor if average is None else average
        action: Tensor = actor(observation, deterministic)
        return action


def normalised(network: nn.Sequential) -> nn.Sequential:
    """Return a perceptron of the same weights with a LayerNorm before every activation."""
    layers: list[nn.Module] = []
    for layer, following in pairwise([*network, None]):
        layers.append(layer)
        if isinstance(layer, nn.Linear) and following is not None:
            layers.append(nn.LayerNorm(layer.out_features))
    return nn.Sequential(*layers)


def make_sac(
    sac: SacConfig, env: gym.Env[Any, Any] | VecEnv, steps: int, seed: int, device: str
) -> SAC:
    """Return an untrained agent for a run of `steps` environment steps, of all envs together."""
    n_envs = env.num_envs if isinstance(env, VecEnv) else 1
    noise = None
    if sac.explore_steps:
        n_actions = int(np.prod(env.action_space.shape or ()))
        noise = fading_noise(
            n_envs, n_actions, sac.explore_steps // n_envs, sac.explore_memory, seed
        )
    steady: dict[str, Any] = {}
    if sac.actor_average or sac.critic_norm:
        steady = {"average": sac.actor_average, "critic_norm": sac.critic_norm}
    return SAC(
        SteadyPolicy if steady else "MlpPolicy",
        env,
        learning_rate=sac.learning_rate,
        buffer_size=min(sac.buffer_size, steps),
        learning_starts=sac.learning_starts,
        batch_size=sac.batch_size,
        tau=sac.polyak,
        gamma=sac.gamma,
        train_freq=sac.train_freq,
        gradient_steps=sac.gradient_steps * n_envs,
        action_noise=noise,
        ent_coef=f"auto_{sac.initial_temperature}",
        target_entropy="auto" if sac.target_entropy is None else sac.target_entropy,
        use_sde=sac.use_sde,
        sde_sample_freq=sac.sde_sample_freq,
        policy_kwargs={
            "net_arch": [sac.width] * sac.depth,
            "optimizer_kwargs": {"fused": True},  # the same Adam in fewer calls
            **steady,
        },
        seed=seed,
        device=device,
    )
