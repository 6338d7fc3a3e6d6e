"""A run of an offline agent: several seeds trained together, evaluated, saved, gone on with, summed up."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from agents import command_line as one_for_all
from agents import run
from agents.evaluation import Policy, record_frames
from agents.learning import HasValue, Learner, learner_state, load_learner_state
from agents.offline_journal import Journal
from agents.offline_options import Options
from agents.parallel_evaluation import BatchPolicy, Judge, check_layout, fitted
from vlp_gym.denormals import flush_denormals
from vlp_gym.errors import DataError
from vlp_gym.feedback.state_file import load_state, save_state
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.video import write_video

OptionsT = TypeVar("OptionsT", bound=Options)


def task_of(config: Options, learner: Learner) -> str:
    """Return the task of a run.

    Raises:
        DataError: the data are of another one, or no one says.
    """
    of_data = learner.about.task_name
    if config.task is None and of_data is None:
        raise DataError(f"{learner.about.source} do not say which task they are of; add --task")
    wanted = find_task(config.task or of_data or "").name
    if of_data is not None and wanted != of_data:
        raise DataError(
            f"{learner.about.source} are of {of_data}, and the policy is to be evaluated in {wanted}; name the data of "
            "the task, or leave --task out"
        )
    return wanted


def learn(config: OptionsT, make: Callable[[OptionsT], Learner]) -> dict[str, Any]:
    """Start a run and return its result.

    Args:
        config: the run.
        make: returns the untrained agent, or refuses its data.
    """
    learner = _prepared(config, make)
    folder = run.new_run_folder(config.out, _name_of(config, learner))
    run.write_config(folder, config)
    return _learn(config, folder, learner, Journal())


def go_on(
    folder: Path, kind: type[OptionsT], make: Callable[[OptionsT], Learner]
) -> dict[str, Any]:
    """Go on with a run from its last checkpoint, as if it had never stopped; return its result."""
    config = run.read_config(folder, kind)
    run.hold(folder)
    learner = _prepared(config, make)
    state = load_state(run.last_checkpoint(folder) / "state.npz")
    load_learner_state(learner, state["learner"])
    journal = Journal.of_state(state["journal"], learner.device)
    return _learn(config, folder, learner, journal)


def _prepared(config: OptionsT, make: Callable[[OptionsT], Learner]) -> Learner:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    learner = make(config)
    check_layout(learner.about.obs_dim)
    task_of(config, learner)
    return learner


def _learn(config: Options, folder: Path, learner: Learner, journal: Journal) -> dict[str, Any]:
    flush_denormals()
    task = task_of(config, learner)
    title = f"{learner.method}, {task}"
    started = time.perf_counter() - journal.seconds
    judge = Judge(
        task,
        learner.about.obs_dim,
        config.evaluation_episodes,
        config.max_episode_steps,
        config.parallel,
    )

    def measure() -> None:
        found = [judge(policy(learner, i), seed) for i, seed in enumerate(config.seeds)]
        journal.seconds = time.perf_counter() - started
        line = journal.add(learner.step, config.seeds, found)
        journal.write(folder, title)
        if not config.quiet:
            tqdm.write(line)

    def save() -> None:
        journal.seconds = time.perf_counter() - started
        state = {"learner": learner_state(learner), "journal": journal.state()}
        run.save_checkpoint(
            folder, learner.step, lambda draft: save_state(draft / "state.npz", state)
        )

    hidden = True if config.quiet else None  # None lets tqdm decide: a bar on a terminal
    bar = tqdm(
        total=config.steps, initial=learner.step, desc=title, disable=hidden, dynamic_ncols=True
    )
    with bar:
        if not journal.rows:
            measure()
        while learner.step < config.steps:
            journal.note(learner.update())
            bar.update()
            ended = learner.step == config.steps
            if ended or learner.step % config.evaluate_every == 0:
                measure()
            if ended or learner.step % config.checkpoint_every == 0:
                save()
    judge.close()
    return _finish(config, task, folder, learner, journal)


def _name_of(config: Options, learner: Learner) -> str:
    seeds = "-".join(map(str, config.seeds))
    return f"{learner.method.lower()}-{task_of(config, learner)}-seed{seeds}"


def policy(learner: Learner, seed: int) -> BatchPolicy:
    """Return the policy of the `seed`-th seed, as a function of arrays."""

    @torch.no_grad()
    def act(obs: Any) -> Any:
        inputs = torch.from_numpy(np.asarray(obs, np.float32)).to(learner.device)
        actions: Tensor = learner.act(inputs, seed)
        return actions.clamp(-1, 1).cpu().numpy()

    return act


def one_by_one(act: BatchPolicy) -> Policy:
    """Return a policy of single observations."""
    return lambda obs: act(obs[None])[0]


def _finish(
    config: Options, task: str, folder: Path, learner: Learner, journal: Journal
) -> dict[str, Any]:
    """Film the final policies, write result.json, say what was reached."""
    instruction = find_task(task).instruction
    if isinstance(learner, HasValue):
        for i, seed in enumerate(config.seeds):
            learner.value_of(i).save(folder / f"value-seed{seed}.npz")
    if config.video_episodes:
        _film(config, task, instruction, folder, learner)
    result = {
        "task": task,
        "instruction": instruction,
        "method": learner.method,
        "seeds": list(config.seeds),
        "steps": config.steps,
        "source": learner.about.source,
        "fingerprint": learner.about.fingerprint,
        "before": journal.before(),
        "success": asdict(journal.summary("success", config.smoothing, config.n_last)),
        "final_success": asdict(journal.summary("final_success", config.smoothing, config.n_last)),
        "env_return": asdict(journal.summary("env_return", config.smoothing, config.n_last)),
        "episodes": config.evaluation_episodes,
        "seconds": round(journal.seconds, 1),
        **run.provenance(),
    }
    run.write_json(folder / "result.json", result)
    if not config.quiet:
        reached = result["success"]
        print(
            f"{learner.method}, {task}: success {reached['mean_of_last']:.0%} over the last evaluations, "
            f"{reached['last']:.0%} at the last, {reached['papers']:.0%} by the papers' protocol; see {folder}"
        )
    return result


def _film(config: Options, task: str, instruction: str, folder: Path, learner: Learner) -> None:
    import gymnasium as gym  # noqa: PLC0415

    env = fitted(
        gym.make(
            f"vlp/{task}", labeler=None, reward="env", max_episode_steps=config.max_episode_steps,
            render_mode="rgb_array", height=config.video_size_px, width=config.video_size_px,
        ),
        learner.about.obs_dim,
    )  # fmt: skip
    for i, seed in enumerate(config.seeds):
        frames, successes = record_frames(
            one_by_one(policy(learner, i)), env, config.video_episodes, seed
        )
        write_video(folder / f"final-seed{seed}.mp4", frames, instruction, successes)
    env.close()


def command_line(
    kind: type[OptionsT], make: Callable[[OptionsT], Learner], description: str | None
) -> None:
    """Run what the command line asks for, see `agents.command_line`."""
    one_for_all.command_line(
        kind, partial(learn, make=make), partial(go_on, kind=kind, make=make), description
    )
