"""Runs of `agents.vlm_reward` that stand beside those of `agents.pebble`: same agent, task, seeds and steps."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv

from agents import pebble, run, vlm_reward
from benchmarks import kept_runs
from benchmarks.schema import Record
from benchmarks.scorer_words import STAND_IN, ScorerWords
from vlp_gym.tasks.instructions import baseline_of


def settings(
    base: pebble.Config, task: str, scorer: str, seed: int, folder: Path
) -> vlm_reward.Config:
    """Return the run in which a scorer pays every step (RoboCLIP: every episode), otherwise as `base`.

    VLM-RM's baseline is VLP's for the task (table 11) unless it is named.
    """
    asked = ScorerWords.read(scorer)
    words = asked.settings
    if asked.name == "vlmrm" and "baseline" not in asked.values:
        words = (*words, f"baseline={baseline_of(task)}")
    return vlm_reward.Config(
        env=task,
        scorer=asked.name,
        checkpoint=asked.checkpoint,
        settings=words,
        protocol="metaworld",
        instruction=base.instruction,
        steps=base.steps,
        learning_starts=base.sac.learning_starts,
        seed=seed,
        evaluate_every=base.evaluate_every,
        evaluation_episodes=base.final_episodes,
        device=base.device,
        threads=base.threads,
        out=folder,
        quiet=base.quiet,
    )


def finished(
    config: vlm_reward.Config,
    folder: Path,
    make_envs: Callable[[vlm_reward.Config], DummyVecEnv] = vlm_reward.make_envs,
) -> dict[str, Any]:
    """Return the result of a run: of the one on disk, of one that goes on, or of a new one."""
    return kept_runs.finished(
        config,
        folder,
        lambda one: vlm_reward.learn(one, make_envs(one)),
        lambda there: vlm_reward.go_on(there, make_envs(config)),
        _deciding,
    )


def _deciding(config: vlm_reward.Config) -> vlm_reward.Config:
    return replace(config, quiet=False)


def results_in(folder: Path, base: pebble.Config) -> list[dict[str, Any]]:
    """Return the results of all finished runs of scorers under a folder.

    Raises:
        ValueError: one of them had other steps than `base`.
    """
    found = []
    for path in sorted(folder.glob("*-seed*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "scorer" not in result:
            continue
        if run.read_config(path.parent, vlm_reward.Config).steps != base.steps:
            raise ValueError(
                f"{path.parent} holds a run of other steps; remove it or name other --runs"
            )
        found.append(result)
    return found


def record_of(result: dict[str, Any]) -> Record:
    """Return a run's result in the form of every benchmark; a stand-in is named as one."""
    before, after = result["before"], result["after"]
    full = str(result["scorer"])
    return Record(
        task=result["env"],
        method=f"reward of {full if STAND_IN in full else full.partition(':')[0]}",
        seed=result["seed"],
        scale=f"{after['step']:,} steps, {after['episodes']} evaluation episodes",
        metrics={
            "success before": before["success"],
            "success after": after["success"],
            "success at the last step": after["final_success"],
            "minutes": after["seconds"] / 60,
        },
        seconds=after["seconds"],
        **{name: result[name] for name in ("commit", "machine", "versions")},
    )
