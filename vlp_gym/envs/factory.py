"""Where the parts meet: a task or any env, a sentence, and the reward that comes of them."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from vlp_gym.envs.metaworld import PICTURE_PX, MetaworldEnv
from vlp_gym.scenes.opengl import prepare_opengl
from vlp_gym.scorers import SCORERS
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, find_task
from vlp_gym.tasks.vlmrm import find_world
from vlp_gym.types import Labeler
from vlp_gym.wrappers.pay import PayConfig
from vlp_gym.wrappers.preference import PreferenceReward
from vlp_gym.wrappers.score import ScoreReward
from vlp_gym.wrappers.seeded import SeededEpisodes


def make_metaworld(
    task: str,
    instruction: str | None = None,
    labeler: str | None = "vlp",
    reward: str = "learned",
    feedback: Mapping[str, Any] | None = None,
    camera: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    render_mode: str | None = None,
    height: int | None = None,
    width: int | None = None,
    preset: str = "fast",
    scorer: Mapping[str, Any] | None = None,
    pay: Mapping[str, Any] | None = None,
) -> gym.Env[Any, Any]:
    """Return a Meta-World env whose reward is a sentence; the entry point of all `vlp/*` ids.

    Args:
        task: name of the task; `gym.make` fills it in.
        instruction: the sentence that becomes the reward; None takes the task's own.
        labeler: who compares segments: "oracle" (the simulator's return), one of B-Pref's imperfect teachers
            ("mistake", "noisy", "skip", "myopic", "equal"), or the name of a scorer: "vlp" (the preference model),
            "clip", "vlmrm", "r3m", "vip", "liv", "roboclip".
        reward: what the agent is paid: "learned" from labels; the simulator's own ("env"), without any labels; or what
            a scorer says of its frames, by the scorer's name, without any labels either.
        feedback: fields of `vlp_gym.feedback.config.FeedbackConfig` that differ from its defaults.
        camera: name of the camera of labels and pictures; None takes the one that the checkpoint was trained on.
        checkpoint: folder of a VLP checkpoint, or `hf-hub:OWNER/NAME`; None takes the bundled one. Of another scorer
            its official file; None looks for it, see `vlp doctor`.
        device: where the scorer and the reward learner run, "auto" or as torch names it.
        render_mode: "rgb_array" to look at the env, or None.
        height: height of `render()`'s pictures in pixels.
        width: width of `render()`'s pictures in pixels.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
        scorer: settings of the scorer's own, such as {"alpha": 0.5, "baseline": "a robot"} of "vlmrm".
        pay: where a scorer pays, how: fields of `vlp_gym.wrappers.pay.PayConfig` that differ from its defaults.

    Raises:
        UnknownNameError: no such task, labeler, camera or preset; the closest names are in the message.
        InstructionError: the sentence is empty or too long.
        RenderingError: this machine cannot draw.
        CheckpointError: the checkpoint is missing or damaged.
    """
    found = find_task(task)
    if render_mode is not None:
        prepare_opengl()  # a machine that cannot draw says so now, not at the first picture
    env = MetaworldEnv(
        found.name,
        render_mode=render_mode,
        camera=camera or DEFAULT_CAMERA,
        height=height or PICTURE_PX,
        width=width or PICTURE_PX,
        preset=preset,
    )
    rewarded = wrap(
        env,
        found.instruction if instruction is None else instruction,
        labeler=labeler,
        reward=reward,
        feedback=feedback,
        camera=camera,
        checkpoint=checkpoint,
        device=device,
        preset=preset,
        scorer=scorer,
        pay=pay,
    )
    return RegisteredEnv(rewarded)


def make_world(
    world: str,
    instruction: str | None = None,
    labeler: str | None = "vlmrm",
    reward: str = "vlmrm",
    feedback: Mapping[str, Any] | None = None,
    camera: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    render_mode: str | None = None,
    preset: str = "exact",
    scorer: Mapping[str, Any] | None = None,
    pay: Mapping[str, Any] | None = None,
    textured: bool = True,
) -> gym.Env[Any, Any]:
    """Return a world of VLM-RM (arXiv 2310.12921) whose reward is a sentence; `vlp/CartPole`, `vlp/HumanoidKneel`, ...

    Arguments that are not named here, and errors, are those of `make_metaworld`.

    Args:
        world: a name of `vlp_gym.tasks.vlmrm.WORLDS`; `gym.make` fills it in.
        instruction: the sentence that becomes the reward; None takes the paper's.
        labeler: who compares segments where `reward` is "learned".
        reward: "vlmrm" pays what VLM-RM does, with the paper's baseline; others as of `make_metaworld`.
        feedback: as of `make_metaworld`.
        camera: name of the humanoid's camera; None takes VLM-RM's.
        checkpoint: as of `make_metaworld`.
        device: as of `make_metaworld`.
        render_mode: "rgb_array" to look at the env, or None.
        preset: drawing quality of the humanoid.
        scorer: settings of the scorer's own; of "vlmrm" `baseline` is the paper's unless it is named.
        pay: as of `make_metaworld`.
        textured: whether mountain and humanoid have textures, which the paper found to matter.
    """
    from vlp_gym.envs.vlmrm import CAMERA, make_bare  # noqa: PLC0415  (imports simulators)

    found = find_world(world)
    env = make_bare(found, render_mode, textured)
    settings = dict(scorer or {})
    if "vlmrm" in (reward, labeler) and reward != "env":
        settings.setdefault("baseline", found.baseline)
    is_looking = reward in SCORERS or labeler in SCORERS
    rewarded = wrap(
        env,
        found.prompt if instruction is None else instruction,
        labeler=labeler,
        reward=reward,
        feedback=feedback,
        camera=camera or (CAMERA if found.kind == "humanoid" else None),
        checkpoint=checkpoint,
        device=device,
        preset=preset,
        scorer=settings if is_looking else scorer,
        pay=pay,
    )
    return RegisteredEnv(rewarded)


class RegisteredEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An env as its id makes it: the wrappers below are part of it and do not show in `env.spec`.

    Otherwise `gym.make(env.spec, instruction=...)` would compare the wrappers made with the new arguments to
    the recorded ones, and refuse.
    """

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """What `gym.make` was asked for: id and arguments."""
        return self.unwrapped.spec


def wrap(
    env: gym.Env[Any, Any],
    instruction: str,
    *,
    labeler: str | Labeler | None = "vlp",
    reward: str = "learned",
    feedback: Mapping[str, Any] | None = None,
    camera: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    preset: str = "fast",
    scorer: Mapping[str, Any] | None = None,
    pay: Mapping[str, Any] | PayConfig | None = None,
) -> gym.Env[Any, Any]:
    """Return any Gymnasium env with a sentence as its reward.

    MuJoCo envs are drawn lazily, from states and by a renderer of our own; any other draws itself every step and
    must be made with `render_mode="rgb_array"`. Arguments and errors are those of `make_metaworld`.

    >>> wrap(gym.make("CartPole-v1"), "balance the pole", labeler="oracle")  # doctest: +ELLIPSIS
    <PreferenceReward<SeededEpisodes<...CartPole...>>>
    """
    if reward in SCORERS:
        return ScoreReward(
            SeededEpisodes(env),
            instruction,
            reward,
            pay,
            camera,
            checkpoint,
            device,
            preset,
            scorer,
        )
    if pay is not None:
        raise ValueError(
            f"`pay` says how a scorer pays; with reward={reward!r} none does: choose one of {', '.join(SCORERS)}"
        )
    return PreferenceReward(
        SeededEpisodes(env),
        instruction=instruction,
        labeler=labeler,
        reward=reward,
        feedback=feedback,
        camera=camera,
        checkpoint=checkpoint,
        device=device,
        preset=preset,
        scorer=scorer,
    )
