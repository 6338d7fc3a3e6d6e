"""An agent that a vision-language model pays for its frames: VLM-RM's worlds, RoboCLIP's protocol, any Meta-World task.

`python -m agents.vlm_reward --env HumanoidKneel --checkpoint open_clip_model.safetensors --settings model=ViT-bigG-14`
is VLM-RM (arXiv 2310.12921), `--env DrawerClose --scorer roboclip` RoboCLIP (arXiv 2310.07899). The algorithms are
Stable-Baselines3's, with the settings that the papers print; on other Meta-World tasks SAC is that of `agents.pebble`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
from gymnasium.wrappers import TimeAwareObservation
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

import vlp_gym  # noqa: F401  registers vlp/*
from agents import run
from agents.checkpoint import load_agent, save_agent
from agents.command_line import command_line
from agents.evaluation import evaluate
from agents.journal import Journal
from agents.progress import Progress
from agents.sac import SacConfig, make_sac
from vlp_gym.sb3 import ScoreRollouts
from vlp_gym.scorers import parse_settings
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.tasks.vlmrm import WORLDS, find_world


@dataclass(frozen=True)
class Protocol:
    """How an agent learns in one kind of world.

    Attributes:
        algorithm: class of Stable-Baselines3.
        settings: its arguments; what is not named keeps its default there.
        steps: environment steps.
        max_episode_steps: time limit.
        n_envs: envs that are stepped in turn; `train_freq` and `n_steps` count steps of each, as in the originals.
        tells_time: whether the policy sees how much of the episode has passed.
        sac: that of `agents.pebble` with its exploration, in the place of `settings`.
    """

    algorithm: type[BaseAlgorithm]
    settings: Mapping[str, Any]
    steps: int
    max_episode_steps: int
    n_envs: int = 1
    tells_time: bool = False
    sac: SacConfig | None = None


PROTOCOLS = {
    "humanoid": Protocol(
        SAC,
        {
            "learning_starts": 50_000,
            "train_freq": 100,
            "gradient_steps": 100,
            "tau": 0.005,
            "gamma": 0.95,
            "learning_rate": 6e-4,
        },
        10_000_000,
        100,
    ),
    "cartpole": Protocol(
        DQN,
        {
            "learning_starts": 75_000,
            "train_freq": 200,
            "gradient_steps": 200,
            "learning_rate": 2.3e-3,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        3_000_000,
        200,
    ),
    "mountain-car": Protocol(
        SAC,
        {
            "train_freq": 200,
            "gradient_steps": 200,
            "tau": 0.01,
            "gamma": 0.9999,
            "learning_rate": 1e-4,
            "ent_coef": 0.1,
            "policy_kwargs": {"net_arch": [64, 64]},
        },
        3_000_000,
        200,
    ),
    "roboclip": Protocol(
        PPO,
        {"n_steps": 128, "batch_size": 1_024, "n_epochs": 1, "ent_coef": 0.5},
        5_000_000,
        128,
        n_envs=8,
        tells_time=True,
    ),
    "metaworld": Protocol(SAC, {}, 100_000, 150, sac=SacConfig(train_freq=150, gradient_steps=150)),
}
"""VLM-RM's appendix C (one env, so that 100 updates per 100 steps are one a transition; its code has 32 envs and one
update per 32 transitions; MountainCar's train_freq is ours), RoboCLIP's code, and for Meta-World the agent of
`agents.pebble`, which trains at the end of an episode, when its frames are scored."""


@dataclass(frozen=True)
class Config:
    """One run."""

    env: str = "HumanoidKneel"
    """A world of VLM-RM, or a task of Meta-World."""
    scorer: str = "vlmrm"
    """Who pays: vlmrm, clip, r3m, vip, liv, roboclip, vlp."""
    checkpoint: str | None = None
    """The scorer's official file; None looks for it (`vlp doctor`); "bundled" is a stand-in for CLIP, and none."""
    settings: tuple[str, ...] = ()
    """Settings of the scorer, NAME=VALUE each, such as alpha=0.5."""
    pay: tuple[str, ...] = ()
    """Fields of `PayConfig`, NAME=VALUE each, such as form=potential."""
    protocol: Literal["own", "metaworld"] = "own"
    """How the agent learns: as in the scorer's own paper, or as `agents.pebble` does, to compare rewards alone."""
    instruction: str | None = None
    """The sentence that becomes the reward; None: the paper's, or the task's."""
    steps: int | None = None
    """Environment steps; None: the protocol's."""
    learning_starts: int | None = None
    """Steps before learning; None: the protocol's."""
    seed: int = 0
    evaluate_every: int = 64_000
    """Steps between evaluations and checkpoints."""
    evaluation_episodes: int = 20
    device: str = "auto"
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """The run folder; None: a new one under runs/."""
    quiet: bool = False
    """No progress bars and no lines."""
    overrides: dict[str, int] = field(default_factory=dict)
    """Whole-number arguments of the algorithm that differ from the protocol, such as train_freq."""

    def __post_init__(self) -> None:
        """Refuse an env that does not exist, before anything is loaded."""
        if self.env not in WORLDS:
            find_task(self.env)
        elif self.protocol == "metaworld":
            raise ValueError(
                f"{self.env} is no task of Meta-World, so it has its own protocol only"
            )


def protocol_of(config: Config) -> Protocol:
    """Return how the agent of a config learns."""
    if config.env in WORLDS:
        return PROTOCOLS[find_world(config.env).kind]
    has_own = config.protocol == "own" and config.scorer == "roboclip"
    return PROTOCOLS["roboclip" if has_own else "metaworld"]


def make_env(config: Config, reward: str | None = None) -> gym.Env[Any, Any]:
    """Return the env that the agent learns in, or, with reward "env", one to judge it by."""
    protocol, paid = protocol_of(config), reward or config.scorer
    name = config.env if config.env in WORLDS else find_task(config.env).name
    looking: dict[str, Any] = {
        "checkpoint": config.checkpoint,
        "scorer": parse_settings(config.settings),
        "pay": parse_settings(config.pay) or None,
        "instruction": config.instruction,
        "device": config.device,
    }
    env: gym.Env[Any, Any] = gym.make(
        f"vlp/{name}",
        labeler=None,
        reward=paid,
        max_episode_steps=protocol.max_episode_steps,
        **({} if paid == "env" else looking),
    )
    return TimeAwareObservation(env, normalize_time=True) if protocol.tells_time else env


def make_envs(config: Config) -> DummyVecEnv:
    """Return the envs that the agent learns in, which share a scorer."""
    makers: list[Any] = [partial(make_env, config)] * protocol_of(config).n_envs
    return DummyVecEnv([partial(watched, maker) for maker in makers])


def watched(make: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    """Return an env that says how long its episodes are and what they were paid, as Stable-Baselines3 logs it."""
    return Monitor(make())


def make_agent(config: Config, envs: Any) -> BaseAlgorithm:
    """Return an untrained agent."""
    protocol = protocol_of(config)
    settings = {**protocol.settings, **config.overrides}
    if config.learning_starts is not None:
        settings["learning_starts"] = config.learning_starts
    if protocol.sac is not None:
        sac = replace(protocol.sac, **settings)
        return make_sac(sac, envs, steps_of(config), config.seed, config.device)
    # Stable-Baselines3 writes into `policy_kwargs`.
    settings["policy_kwargs"] = dict(settings.get("policy_kwargs", {}))
    if issubclass(protocol.algorithm, OffPolicyAlgorithm):
        settings["buffer_size"] = min(1_000_000, steps_of(config))
    return protocol.algorithm(
        policy="MlpPolicy", env=envs, seed=config.seed, device=config.device, **settings
    )


def steps_of(config: Config) -> int:
    """Return the environment steps of a run."""
    return protocol_of(config).steps if config.steps is None else config.steps


def learn(config: Config, envs: DummyVecEnv | None = None) -> dict[str, Any]:
    """Start a run and return its result.

    Args:
        config: the run.
        envs: what the agent learns in; None makes what the config says. Whoever brings a scorer object brings envs.
    """
    torch.set_num_threads(config.threads)
    folder = run.new_run_folder(config.out, name_of(config))
    envs = envs or make_envs(config)
    agent = make_agent(config, envs)
    run.write_config(folder, config)
    return _learn(config, folder, agent, envs, Journal())


def go_on(folder: Path, envs: DummyVecEnv | None = None) -> dict[str, Any]:
    """Go on with a run from its last checkpoint, as if it had never stopped; `envs` and result as of `learn`."""
    config = run.read_config(folder, Config)
    run.hold(folder)
    torch.set_num_threads(config.threads)
    envs, kind = envs or make_envs(config), protocol_of(config).algorithm
    agent, journal = load_agent(run.last_checkpoint(folder), envs, config.device, kind)
    return _learn(config, folder, agent, envs, Journal(**journal))


def _learn(
    config: Config, folder: Path, agent: BaseAlgorithm, envs: DummyVecEnv, journal: Journal
) -> dict[str, Any]:
    started = time.perf_counter() - journal.seconds
    judge, steps = make_env(config, "env"), steps_of(config)
    (scorer,) = envs.get_attr("scorer", indices=[0])
    agent.set_logger(configure(str(folder / "tensorboard"), ["tensorboard"]))
    progress = Progress(steps, None, config.quiet)
    callbacks = [WholeRun(steps), ScoreRollouts(), progress]

    def measure() -> None:
        found = evaluate(
            lambda obs: agent.predict(obs, deterministic=True)[0],
            judge,
            config.evaluation_episodes,
            config.seed,
        )
        journal.seconds = time.perf_counter() - started
        progress.say(journal.add(agent.num_timesteps, found, None))
        journal.write(folder, title_of(config, scorer.name), None)

    with progress:
        if not journal.rows:
            measure()
        while (begin := agent.num_timesteps) < steps:
            stop = min(steps, (begin // config.evaluate_every + 1) * config.evaluate_every)
            agent.learn(stop - begin, callbacks, reset_num_timesteps=False)
            measure()
            write = partial(save_agent, agent=agent, env=envs, extra=asdict(journal))
            run.save_checkpoint(folder, agent.num_timesteps, write)
    judge.close()
    result = {
        "env": config.env,
        "instruction": envs.get_attr("task", indices=[0])[0].instruction,
        "scorer": scorer.name,
        "sha256": getattr(scorer, "sha256", {}),
        "seed": config.seed,
        "before": journal.rows[0],
        "after": journal.rows[-1],
        **run.provenance(),
    }
    run.write_json(folder / "result.json", result)
    return result


class WholeRun(BaseCallback):
    """Lets schedules, such as DQN's exploration, run over the whole run and not over each of its parts."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def _on_training_start(self) -> None:
        self.model._total_timesteps = self._steps

    def _on_step(self) -> bool:
        return True


def title_of(config: Config, scorer: str) -> str:
    """Return a line that says what a run is."""
    return f"{config.env}, paid by {scorer}"


def name_of(config: Config) -> str:
    """Return what the folder of a run is called, less its date."""
    return f"vlm-{config.env}-{config.scorer}-seed{config.seed}"


if __name__ == "__main__":
    command_line(Config, learn, go_on, __doc__)
