"""Builds the scene and the labeler of an env from names, so that env specs stay plain JSON."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.types import Labeler, Scene

ORACLE = "oracle"
"""Name of the labeler that compares the simulator's returns."""
VLP = "vlp"
"""Name of the labeler that asks the preference model."""
LABELERS = (VLP, ORACLE)
"""Labelers that have a name; any other is passed as an object."""


class Parts(NamedTuple):
    """What a feedback loop needs of an env: who compares, and what draws (None: nothing does)."""

    labeler: Labeler
    scene: Scene | None


def build_parts(
    env: gym.Env[Any, Any],
    labeler: str | Labeler,
    camera: str | None,
    checkpoint: str | None,
    device: str,
    preset: str,
    feedback: FeedbackConfig,
) -> Parts:
    """Return labeler and scene for an env.

    With the oracle, or a labeler of your own without a scene, a MuJoCo env is recorded such that it
    can be drawn later, which costs nothing; what any other env looks like is not kept.

    Raises:
        UnknownNameError: no such labeler.
        CheckpointError: the checkpoint is missing or damaged.
        RenderingError: the labeler looks and the env cannot be drawn.
    """
    if labeler == VLP:
        return _looking(env, camera, checkpoint, device, preset, feedback)
    if isinstance(labeler, str) and labeler != ORACLE:
        raise UnknownNameError.of("labeler", labeler, list(LABELERS))
    if isinstance(labeler, str):
        from vlp_gym.labelers.oracle import OracleLabeler  # noqa: PLC0415

        return Parts(OracleLabeler(), _lazy_scene(env, camera, None, preset))
    scene = getattr(labeler, "scene", None)
    return Parts(labeler, scene or _lazy_scene(env, camera, None, preset))


def _looking(
    env: gym.Env[Any, Any],
    camera: str | None,
    checkpoint: str | None,
    device: str,
    preset: str,
    feedback: FeedbackConfig,
) -> Parts:
    from vlp_gym.labelers.score import ScoreLabeler  # noqa: PLC0415
    from vlp_gym.scenes.eager import EagerScene  # noqa: PLC0415
    from vlp_gym.scorers import load_scorer  # noqa: PLC0415

    scorer = load_scorer(VLP, checkpoint=checkpoint, device=device)
    size_px = int(scorer.image_size_px)
    if camera is None and is_metaworld(env):
        camera = scorer.camera
    scene: Scene | None = _lazy_scene(env, camera, size_px, preset)
    if scene is None:
        scene = EagerScene(env, height=size_px, width=size_px)
    settings = (feedback.soft_labels, feedback.temperature, feedback.tie_band)
    return Parts(ScoreLabeler(scorer, scene, *settings), scene)


def _lazy_scene(
    env: gym.Env[Any, Any], camera: str | None, size_px: int | None, preset: str
) -> Scene | None:
    """Return the scene of a MuJoCo env, None for any other."""
    if not hasattr(env.unwrapped, "model") or not hasattr(env.unwrapped, "data"):
        return None
    from vlp_gym.scenes.opengl import prepare_opengl  # noqa: PLC0415

    prepare_opengl()
    settings: dict[str, Any] = {"preset": preset}
    if camera is not None:
        settings["camera"] = camera
    if is_metaworld(env):
        from vlp_gym.scenes.metaworld import metaworld_scene  # noqa: PLC0415

        if size_px is not None:
            settings["size_px"] = size_px
        return metaworld_scene(env, **settings)
    from vlp_gym.scenes.mujoco import MujocoScene  # noqa: PLC0415

    if size_px is not None:
        settings |= {"height": size_px, "width": size_px}
    return MujocoScene.of(env, **settings)


def is_metaworld(env: gym.Env[Any, Any]) -> bool:
    """Return whether an env is one of Meta-World's, by its module."""
    return type(env.unwrapped).__module__.split(".")[0] == "metaworld"


NOTHING = np.zeros(0)
"""The snapshot of an env that nobody draws."""
