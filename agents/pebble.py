"""PEBBLE with SAC: learns a reward from preferences between segments, and a policy from that reward.

`python -m agents.pebble --help` lists every option; without options it runs the demo. PEBBLE is Lee et al., 2021; the
agent is Stable-Baselines3's SAC, with a policy and exploration noise of ours (`agents.sac`). `BPref` below is the
code of PEBBLE's authors, rll-research/BPref.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import vlp_gym  # noqa: F401  registers vlp/*
from agents import run
from agents.checkpoint import load_agent, save_agent
from agents.command_line import command_line
from agents.evaluation import Policy, evaluate, record_frames
from agents.journal import Journal
from agents.progress import Progress
from agents.sac import SacConfig, make_sac
from agents.tracking import make_logger
from vlp_gym.denormals import flush_denormals
from vlp_gym.feedback.archive import EpisodeArchive
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.sb3 import PreferenceVecEnv, RelabelReplay, make_vec_env
from vlp_gym.scorers import SCORERS, parse_settings
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.video import write_video
from vlp_gym.wrappers.shared import SharedFeedback

World = gym.Env[Any, Any] | PreferenceVecEnv
"""What the agent acts in."""


@dataclass(frozen=True)
class Config:
    """One run of PEBBLE."""

    task: str = "DrawerClose"
    """Any of the 50 tasks of Meta-World."""
    instruction: str | None = None
    """The sentence that becomes the reward; None: the default of the task."""
    labeler: Literal[
        "vlp", "oracle", "mistake", "noisy", "skip", "myopic", "equal",
        "clip", "vlmrm", "r3m", "vip", "liv", "roboclip",
    ] = "vlp"  # fmt: skip
    """Who compares segments: the preference model, the simulator's own return, B-Pref's imperfect teachers, or another
    scorer (P-CLIP and so on)."""
    reward: Literal["learned", "env"] = "learned"
    """What pays the agent; `env`: the simulator's reward, with no feedback at all."""
    checkpoint: Path | None = None
    """A preference model of your own; None: the bundled one. Of another scorer its official file, or "bundled"."""
    settings: tuple[str, ...] = ()
    """Settings of the scorer, NAME=VALUE each, such as alpha=0.5."""
    steps: int = 10_000
    """Environment steps, of all envs together."""
    n_envs: int = 1
    """Envs side by side, with one feedback loop."""
    processes: bool = False
    """Whether each of several envs runs in a process of its own."""
    max_episode_steps: int = 150
    """Steps of an episode; scripted experts succeed within 150 in every task."""
    seed: int = 0
    feedback: FeedbackConfig = FeedbackConfig(800, queries_per_session=80, session_every=1_000)
    """Ours: a run of minutes asks early and often, and a scorer's labels cost little."""
    sac: SacConfig = field(default_factory=SacConfig)
    evaluate_every: int = 1_000
    """Steps between evaluations."""
    evaluation_episodes: int = 5
    """Episodes of an evaluation on the way."""
    final_episodes: int = 20
    """Episodes of the evaluations before and after learning."""
    checkpoint_every: int = 2_500
    """Steps between checkpoints."""
    keep_episodes: bool = True
    """Whether the states of every episode stay in the run folder, for `vlp replay`."""
    video_episodes: int = 3
    """Episodes of the final video; 0: no video."""
    video_size_px: int = 320
    track: Literal["wandb", "trackio"] | None = None
    """A tracker beside TensorBoard."""
    device: str = "auto"
    """Where networks run: auto, cpu, cuda."""
    threads: int = 1
    """Threads of torch; small networks gain little from more."""
    out: Path | None = None
    """The run folder; None: a new one under runs/."""
    quiet: bool = False
    """No progress bars and no lines."""

    def __post_init__(self) -> None:
        """Refuse several envs where nothing is shared."""
        if self.n_envs < 1 or (self.n_envs > 1 and self.reward == "env"):
            raise ValueError(
                "n_envs must be 1 or more, and 1 with reward='env' (several envs share a feedback loop, and there is "
                f"none); got {self.n_envs}"
            )


DEMO = Config()
"""What `make demo` runs."""


def learn(config: Config) -> dict[str, Any]:
    """Start a run and return its result."""
    torch.set_num_threads(config.threads)
    folder = run.new_run_folder(config.out, name_of(config))
    env = make_env(config, folder)
    agent = make_sac(config.sac, env, config.steps, config.seed, config.device)
    run.write_config(folder, config)
    return _learn(config, folder, agent, env, Journal())


def go_on(folder: Path) -> dict[str, Any]:
    """Go on with a run from its last checkpoint, as if it had never stopped; return its result."""
    config = run.read_config(folder, Config)
    run.hold(folder)
    torch.set_num_threads(config.threads)
    env = make_env(config, folder)
    agent, journal = load_agent(run.last_checkpoint(folder), env, config.device)
    return _learn(config, folder, agent, env, Journal(**journal))


def _learn(
    config: Config, folder: Path, agent: SAC, env: World, journal: Journal
) -> dict[str, Any]:
    flush_denormals()
    started = time.perf_counter() - journal.seconds
    shared, judge = shared_of(env), make_judge(config)
    loop = None if shared is None else shared.loop
    if loop is not None and config.keep_episodes:
        names = [find_task(config.task).name] * config.n_envs
        loop.on_episode.append(EpisodeArchive(folder, names, loop.tasks).add)
    agent.set_logger(make_logger(folder, config.track, asdict(config)))
    progress = Progress(config.steps, loop, config.quiet)
    callbacks: list[BaseCallback] = [progress] if loop is None else [RelabelReplay(), progress]

    def measure(episodes: int) -> None:
        evaluation = evaluate(greedy(agent), judge, episodes, config.seed)
        journal.seconds = time.perf_counter() - started
        progress.say(journal.add(agent.num_timesteps, evaluation, loop))
        journal.write(folder, title_of(config), loop)

    with progress:
        if not journal.rows:
            measure(config.final_episodes)
        while (begin := agent.num_timesteps) < config.steps:
            # Between two calls of `learn` no step is half done: only there a run is saved.
            agent.learn(next_stop(begin, config) - begin, callbacks, reset_num_timesteps=False)
            ended = agent.num_timesteps >= config.steps
            if ended or run.passed(begin, agent.num_timesteps, config.evaluate_every):
                measure(config.final_episodes if ended else config.evaluation_episodes)
            if ended or run.passed(begin, agent.num_timesteps, config.checkpoint_every):
                journal.seconds = time.perf_counter() - started
                write = partial(save_agent, agent=agent, env=env, extra=asdict(journal))
                run.save_checkpoint(folder, agent.num_timesteps, write)
    env.close()
    agent.logger.close()
    alarms = [] if shared is None else shared.alarms
    return finish(config, folder, agent, judge, journal, alarms)


def next_stop(step: int, config: Config) -> int:
    """Return the next step at which something is measured or saved."""
    periods = (config.evaluate_every, config.checkpoint_every)
    return min(config.steps, *((step // period + 1) * period for period in periods))


def shared_of(env: World) -> SharedFeedback | None:
    """Return what feeds the feedback loop of what `make_env` made; None where nothing is learned."""
    if isinstance(env, PreferenceVecEnv):
        return env.shared
    shared: SharedFeedback | None = env.get_wrapper_attr("shared")
    return shared


def make_env(config: Config, folder: Path) -> World:
    """Return the env that the agent learns in, or a vector of several; scores stay in the run folder."""
    learned = config.reward == "learned"
    feedback, scorer = config.feedback, parse_settings(config.settings) or None
    if config.labeler in SCORERS and feedback.label_store is None:
        feedback = replace(feedback, label_store=str(folder / "labels.sqlite"))
    if config.n_envs > 1:
        return make_vec_env(
            config.task,
            config.n_envs,
            config.instruction,
            max_episode_steps=config.max_episode_steps,
            vec_env_cls=SubprocVecEnv if config.processes else DummyVecEnv,
            labeler=config.labeler,
            feedback=asdict(feedback),
            checkpoint=None if config.checkpoint is None else str(config.checkpoint),
            device=config.device,
            scorer=scorer,
        )
    return Monitor(
        gym.make(
            f"vlp/{find_task(config.task).name}",
            instruction=config.instruction,
            labeler=config.labeler if learned else None,
            reward=config.reward,
            feedback=asdict(feedback) if learned else None,
            checkpoint=None if config.checkpoint is None else str(config.checkpoint),
            device=config.device,
            scorer=scorer,
            max_episode_steps=config.max_episode_steps,
        )
    )


def make_judge(config: Config) -> gym.Env[Any, Any]:
    """Return the env that policies are evaluated and filmed in; it knows no feedback."""
    return gym.make(
        f"vlp/{find_task(config.task).name}",
        labeler=None,
        reward="env",
        max_episode_steps=config.max_episode_steps,
        render_mode="rgb_array",
        height=config.video_size_px,
        width=config.video_size_px,
    )


def greedy(agent: SAC) -> Policy:
    """Return the agent's policy without its exploration noise."""
    return lambda obs: agent.predict(obs, deterministic=True)[0]


def finish(
    config: Config,
    folder: Path,
    agent: SAC,
    judge: gym.Env[Any, Any],
    journal: Journal,
    alarms: Sequence[int],
) -> dict[str, Any]:
    """Film the final policy, write result.json, say what was reached."""
    before, after = journal.rows[0], journal.rows[-1]
    result = {
        "task": find_task(config.task).name,
        "instruction": instruction_of(config),
        "method": method_of(config),
        "seed": config.seed,
        "before": before,
        "after": after,
        "alarms": list(alarms),
        **run.provenance(),
    }
    if config.video_episodes:
        frames, successes = record_frames(greedy(agent), judge, config.video_episodes, config.seed)
        write_video(folder / "final.mp4", frames, result["instruction"], successes)
    judge.close()
    run.write_json(folder / "result.json", result)
    if not config.quiet:
        print(f"{title_of(config)}, success in {after['episodes']} episodes:")
        print(f"before {before['success']:.0%}, after {after['success']:.0%}; see {folder}")
        if alarms:
            print(f"the learned return rose without success at steps {', '.join(map(str, alarms))}")
    return result


def instruction_of(config: Config) -> str:
    """Return the sentence of a run."""
    return config.instruction or find_task(config.task).instruction


def method_of(config: Config) -> str:
    """Return where the reward of a run comes from: vlp, oracle or env."""
    return config.labeler if config.reward == "learned" else "env"


def title_of(config: Config) -> str:
    """Return a line that says what a run is."""
    return f'{find_task(config.task).name}, "{instruction_of(config)}", {method_of(config)}'


def name_of(config: Config) -> str:
    """Return what the folder of a run is called, less its date."""
    return f"pebble-{find_task(config.task).name}-{method_of(config)}-seed{config.seed}"


if __name__ == "__main__":
    command_line(Config, learn, go_on, __doc__)
