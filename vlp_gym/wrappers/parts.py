"""Builds the scene and the labeler of an env from names, so that env specs stay plain JSON."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.store import LabelStore
from vlp_gym.labelers.stored import StoredLabeler
from vlp_gym.labelers.teacher import TEACHERS, Teacher
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.eager import require_pictures
from vlp_gym.scenes.metaworld import is_metaworld
from vlp_gym.scenes.mujoco import is_mujoco
from vlp_gym.scenes.opengl import prepare_opengl
from vlp_gym.types import Labeler, Scene

ORACLE = "oracle"
"""Name of the labeler that compares the simulator's returns."""
VLP = "vlp"
"""Name of the labeler that asks the preference model."""
LABELERS = (VLP, ORACLE, *TEACHERS)
"""Labelers that have a name; any other is passed as an object."""

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
) -> Parts:
    """Return the labeler and a scene for an env of each task.

    With the oracle, or a labeler of your own without a scene, a MuJoCo env is recorded such that it
    can be drawn later, which costs nothing; what any other env looks like is not kept.

    Args:
        envs: one env of each task.
        labeler: name in `LABELERS`, or an object.
        camera: as in `PreferenceReward`; so are the next three.
        checkpoint: a VLP checkpoint.
        device: where the preference model runs.
        preset: drawing quality.
        feedback: says what the labels of a scorer are like.
        task_of_env: which of `envs` each env of a vector is like.

    Raises:
        UnknownNameError: no such labeler.
        CheckpointError: the checkpoint is missing or damaged.
        RenderingError: the labeler looks and an env cannot be drawn.
    """
    if labeler == VLP:
        return _looking(envs, camera, checkpoint, device, preset, feedback, task_of_env)
    if isinstance(labeler, str) and labeler not in LABELERS:
        raise UnknownNameError.of("labeler", labeler, list(LABELERS))
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
    camera: str | None,
    checkpoint: str | None,
    device: str,
    preset: str,
    feedback: FeedbackConfig,
    task_of_env: Sequence[int],
) -> Parts:
    from vlp_gym.labelers.score import ScoreLabeler  # noqa: PLC0415
    from vlp_gym.scorers import load_scorer  # noqa: PLC0415

    # What cannot be drawn says so now, before weights are loaded and long before the first session.
    for env in envs:
        if is_mujoco(env):
            prepare_opengl()
        else:
            require_pictures(env)
    scorer = load_scorer(VLP, checkpoint=checkpoint, device=device)
    size_px, threads = int(scorer.image_size_px), drawing_threads()
    cameras = [scorer.camera if camera is None and is_metaworld(env) else camera for env in envs]
    scenes = [
        scene_of(env, name, size_px, preset, threads)
        for env, name in zip(envs, cameras, strict=True)
    ]
    judge = ScoreLabeler(
        scorer,
        [scenes[row] for row in task_of_env],
        feedback.soft_labels,
        feedback.temperature,
        feedback.tie_band,
        store=None if feedback.label_store is None else LabelStore(feedback.label_store),
    )
    return Parts(judge, [*scenes])


def drawing_threads() -> int:
    """Return how many frames are drawn side by side: one a core that this process may use, 4 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_THREADS)
