"""`gym.make("vlp/...")`: ids, arguments, specs, checkers, vectors."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import vlp_gym
from tests.sawyer import rollout
from vlp_gym.errors import CheckpointError, InstructionError, RenderingError, UnknownNameError
from vlp_gym.tasks.metaworld import TASKS

ARGUMENTS = [
    {"reward": "env"},
    {"reward": "env", "render_mode": "rgb_array", "height": 32, "width": 32},
    {"labeler": "oracle", "feedback": {"segment_length": 10}},
]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_registered_unversioned_by_a_string(task: str) -> None:
    spec = gym.spec(f"vlp/{task}")
    assert spec.version is None
    assert isinstance(spec.entry_point, str)
    assert EnvSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_gymnasiums_checker_has_no_complaint(arguments: dict[str, Any]) -> None:
    env = gym.make("vlp/ButtonPress", **arguments)
    with pytest.warns(UserWarning) as complaints:  # of any wrapper at all
        check_env(env)
    assert ["different from the unwrapped version" in str(c.message) for c in complaints] == [True]
    check_env(env.unwrapped)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_stable_baselines3_checker_has_no_complaint(arguments: dict[str, Any]) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(gym.make("vlp/ButtonPress", **arguments))


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_env_is_made_again_from_its_spec(arguments: dict[str, Any]) -> None:
    env = gym.make("vlp/Push", max_episode_steps=40, instruction="push it", **arguments)
    env.reset(seed=0)
    expected = rollout(env, 10)
    specs = [env.spec, EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))]
    for spec in specs:
        again = gym.make(spec)
        again.reset(seed=0)
        assert np.array_equal(rollout(again, 10), expected)
        assert again.spec == env.spec


def test_a_spec_takes_other_arguments() -> None:
    spec = gym.make("vlp/Push", reward="env").spec
    env = gym.make(spec, instruction="shove it", render_mode="rgb_array")
    assert env.spec.kwargs["instruction"] == "shove it"
    assert env.render_mode == "rgb_array"


def test_the_simulators_reward_is_in_info_at_every_step_whoever_pays() -> None:
    runs = {}
    for name, arguments in (("env", {"reward": "env"}), ("learned", {"labeler": "oracle"})):
        env = gym.make("vlp/Push", **arguments)
        env.reset(seed=0)
        steps = [env.step(action) for action in np.zeros((5, 4), np.float32)]
        assert all(isinstance(step[4]["env_reward"], float) for step in steps)
        runs[name] = [(step[1], step[4]["env_reward"]) for step in steps]
    assert all(paid == known for paid, known in runs["env"])
    assert all(paid == 0.0 for paid, _ in runs["learned"])  # before the first fit
    assert [known for _, known in runs["env"]] == [known for _, known in runs["learned"]]


def test_the_time_limit_is_the_makers() -> None:
    env = gym.make("vlp/Reach", reward="env", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_pictures_have_the_size_that_was_asked_for() -> None:
    env = gym.make("vlp/Reach", reward="env", render_mode="rgb_array", height=40, width=60)
    env.reset(seed=0)
    assert env.render().shape == (40, 60, 3)


def test_workers_of_a_vector_env_each_have_their_seed() -> None:
    envs = gym.make_vec("vlp_gym:vlp/Push", num_envs=2, vectorization_mode="async", reward="env")
    obs, _ = envs.reset(seed=3)
    alone = [gym.make("vlp/Push", reward="env").reset(seed=seed)[0] for seed in (3, 4)]
    assert np.array_equal(obs, alone)
    _, reward, *_, info = envs.step(envs.action_space.sample())
    assert np.array_equal(reward, info["env_reward"])
    envs.close()


def test_a_script_that_renders_and_closes_nothing_ends_quietly() -> None:
    code = (
        "import gymnasium as gym, vlp_gym\n"
        "env = gym.make('vlp/Reach', reward='env', render_mode='rgb_array', height=8, width=8)\n"
        "env.reset(); env.render()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ({"labeler": "orakel"}, UnknownNameError, "did you mean 'oracle'"),
        ({"reward": "learnt"}, UnknownNameError, "did you mean 'learned'"),
        ({"labeler": None}, ValueError, "needs a labeler"),
        ({"labeler": "oracle", "camera": "corner9"}, UnknownNameError, "did you mean 'corner"),
        ({"reward": "env", "camera": "corner9"}, UnknownNameError, "did you mean 'corner"),
        ({"labeler": "oracle", "preset": "fats"}, UnknownNameError, "did you mean 'fast'"),
        ({"labeler": "oracle", "instruction": " "}, InstructionError, "say what the robot"),
        ({"labeler": "oracle", "instruction": "go " * 999}, InstructionError, "shorter"),
        ({"instruction": "incomprehensibly " * 40}, InstructionError, "tokens, this model reads"),
        (
            {"labeler": "oracle", "feedback": {"segmentlength": 9}},
            UnknownNameError,
            "segment_length",
        ),
        ({"reward": "env", "render_mode": "human"}, RenderingError, "rgb_array"),
        ({"checkpoint": "/no/such/file"}, CheckpointError, "/no/such/file"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_to_do(
    arguments: dict[str, Any], error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint):
        gym.make("vlp/ButtonPress", **arguments)


def test_an_unknown_task_is_answered_with_the_closest() -> None:
    with pytest.raises(gym.error.NameNotFound, match="ButtonPress"):
        gym.make("vlp/ButonPress")
    with pytest.raises(UnknownNameError, match="did you mean 'ButtonPress'"):
        gym.make("vlp/ButtonPress", task="ButonPress")


def test_a_labeler_that_looks_needs_opengl_when_the_env_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlp_gym.scenes import opengl

    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(opengl, "opens", lambda backend: False)
    with pytest.raises(RenderingError, match="apt-get install"):
        gym.make("vlp/ButtonPress", labeler="vlp")
    gym.make("vlp/ButtonPress", labeler="oracle").reset(seed=0)  # which never looks


def test_the_default_sentence_is_the_tasks_own() -> None:
    env = gym.make("vlp/DoorClose", labeler="oracle")
    assert env.get_wrapper_attr("task").instruction == vlp_gym.TASKS["DoorClose"].instruction


def test_the_package_is_typed() -> None:
    assert (Path(vlp_gym.__file__).parent / "py.typed").exists()
