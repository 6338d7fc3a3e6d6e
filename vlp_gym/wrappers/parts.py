"""Builds the scene and the labeler of an env from names, so that env specs stay plain JSON."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.labelers.store import LabelStore
from vlp_gym.labelers.stored import StoredLabeler
from vlp_gym.labelers.teacher import TEACHERS, Teacher
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.eager import require_pictures
from vlp_gym.scenes.metaworld import is_metaworld
from vlp_gym.scenes.mujoco import is_mujoco
from vlp_gym.scenes.opengl import prepare_opengl
from vlp_gym.scorers import SCORERS, load_scorer
from vlp_gym.types import Labeler, Scene, Task

ORACLE = "oracle"
"""Name of the labeler that compares the simulator's returns."""
LABELERS = (*SCORERS, ORACLE, *TEACHERS)
"""Labelers that have a name, each scorer's among them; any other is passed as an object."""

MOST_THREADS = 4
"""Threads that draw for one env, at most; more than the frames of a segment have nothing to do."""


class Parts(NamedTuple):
    """What a feedback loop needs: who compares, and what draws the env of each task (None: nothing does)."""

    labeler: Labeler
    scenes: list[Scene | None]


def build_parts(
    envs: Sequence[gym.Env[Any, Any]],
    labeler: str | Labeler,
    camera: str | None,
    checkpoint: str | None,
    device: str,
    preset: str,
    feedback: FeedbackConfig,
    task_of_env: Sequence[int] = (0,),
    scorer: Mapping[str, Any] | None = None,
) -> Parts:
    """Return the labeler and a scene for an env of each task.

    With the oracle, or a labeler of your own without a scene, a MuJoCo env is recorded such that it
    can be drawn later, which costs nothing; what any other env looks like is not kept.

    Args:
        envs: one env of each task.
        labeler: name in `LABELERS`, or an object.
        camera: as in `PreferenceReward`; so are the next three.
        checkpoint: a VLP checkpoint, or the official file of another scorer.
        device: where the scorer runs.
        preset: drawing quality.
        feedback: says what the labels of a scorer are like.
        task_of_env: which of `envs` each env of a vector is like.
        scorer: settings of the labeler's scorer.

    Raises:
        UnknownNameError: no such labeler.
        ValueError: settings of a scorer for a labeler that is none.
        CheckpointError: the checkpoint is missing or damaged.
        RenderingError: the labeler looks and an env cannot be drawn.
    """
    if isinstance(labeler, str) and labeler in SCORERS:
        for env in envs:
            _check_drawable(env)  # before weights are loaded, and long before the first session
        loaded = load_scorer(labeler, checkpoint=checkpoint, device=device, **(scorer or {}))
        return _looking(envs, loaded, camera, preset, feedback, task_of_env)
    if isinstance(labeler, str) and labeler not in LABELERS:
        raise UnknownNameError.of("labeler", labeler, list(LABELERS))
    if scorer:
        raise ValueError(
            f"`scorer` holds settings of a scorer ({', '.join(scorer)}), and labeler {labeler!r} is none: drop them"
        )
    if isinstance(labeler, str):
        labeler = OracleLabeler() if labeler == ORACLE else Teacher.of(labeler)
    elif feedback.label_store is not None:
        labeler = StoredLabeler(labeler, LabelStore(feedback.label_store))
    given: Scene | None = getattr(labeler, "scene", None)
    scenes = [
        scene_of(env, camera, preset=preset) if given is None and is_mujoco(env) else given
        for env in envs
    ]
    return Parts(labeler, scenes)


def _looking(
    envs: Sequence[gym.Env[Any, Any]],
    scorer: Any,
    camera: str | None,
    preset: str,
    feedback: FeedbackConfig,
    task_of_env: Sequence[int],
) -> Parts:
    scenes = [scorer_scene(env, scorer, camera, preset) for env in envs]
    soft = feedback.soft_labels
    judge = ScoreLabeler(
        scorer,
        [scenes[row] for row in task_of_env],
        bool(getattr(scorer, "is_log_odds", False)) if soft is None else soft,
        feedback.temperature,
        feedback.tie_band,
        store=None if feedback.label_store is None else LabelStore(feedback.label_store),
    )
    return Parts(judge, [*scenes])


def scorer_scene(
    env: gym.Env[Any, Any], scorer: Any, camera: str | None = None, preset: str = "fast"
) -> Scene:
    """Return the scene that draws an env as a scorer wants its frames.

    A MuJoCo env is drawn in the size that the scorer reads. What draws itself keeps its own size where the scorer says
    how it makes frames fit, and is resized where it does not.

    Raises:
        RenderingError: the env cannot be drawn.
        UnknownNameError: no such camera or preset.
        SettingError: what the scorer compares frames with has another size.
    """
    _check_drawable(env)
    if camera is None and is_metaworld(env):
        camera = getattr(scorer, "camera", None)
    size_px = getattr(scorer, "image_size_px", None) if is_mujoco(env) else picture_size(scorer)
    if isinstance(size_px, int) and hasattr(scorer, "check_size"):
        scorer.check_size(size_px, size_px)
    return scene_of(env, camera, size_px, preset, drawing_threads())


def picture_size(scorer: Any) -> int | tuple[int, int] | None:
    """Return the size in which a scorer gets the pictures of an env that draws itself; None: that which it draws in."""
    size_px: int | tuple[int, int] | None = getattr(scorer, "image_size_px", None)
    return None if hasattr(scorer, "preprocess") else size_px


def check_task(scorer: Any, task: Task) -> None:
    """Refuse a task that a scorer cannot score under, where it can tell before there are frames.

    Raises:
        SettingError: the scorer lacks what it compares with.
        InstructionError: the scorer cannot read the sentence.
    """
    if hasattr(scorer, "check"):
        scorer.check(task)


def _check_drawable(env: gym.Env[Any, Any]) -> None:
    if is_mujoco(env):
        prepare_opengl()
    elif not hasattr(env.unwrapped, "make_scene"):
        require_pictures(env)


def info_with(info: Mapping[str, Any], env_reward: float) -> dict[str, Any]:
    """Return a step's info with the simulator's reward, and its success as a bool under the name that SB3 reads."""
    told = {**info, "env_reward": env_reward}
    if "success" in told:
        told["is_success"] = bool(told["success"])
    return told


def drawing_threads() -> int:
    """Return how many frames are drawn side by side: one a core that this process may use, 4 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_THREADS)
