"""`import vlp_gym` is light."""

import json
import subprocess
import sys

import pytest

import vlp_gym

HEAVY = ("torch", "mujoco", "metaworld", "open_clip", "stable_baselines3", "PIL", "scipy")


def in_new_process(code: str) -> dict:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_importing_loads_neither_torch_nor_a_simulator() -> None:
    loaded = in_new_process(
        "import vlp_gym, sys, json; print(json.dumps(dict.fromkeys(sys.modules)))"
    )
    assert not set(HEAVY) & set(loaded)


def test_importing_adds_little_to_what_gymnasium_costs() -> None:
    # Against Gymnasium's own import in the same process, because seconds alone say how busy the machine
    # is; those stand in benchmarks/results/imports.json. The best of five.
    code = (
        "import time; t = time.process_time(); import gymnasium; u = time.process_time(); "
        "import vlp_gym; print((time.process_time() - u) / (u - t))"
    )
    assert min(in_new_process(code) for _ in range(5)) < 0.5


def test_an_env_paid_by_the_simulator_never_loads_torch() -> None:
    """Workers of a vector env would each pay for it, in seconds and in memory."""
    loaded = in_new_process(
        "import gymnasium as gym, vlp_gym, sys, json\n"
        "env = gym.make('vlp/Reach', reward='env')\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "print(json.dumps(dict.fromkeys(sys.modules)))"
    )
    assert "mujoco" in loaded
    assert "torch" not in loaded


def test_a_module_prefix_registers_the_ids() -> None:
    steps = in_new_process(
        "import gymnasium as gym\n"
        "print(gym.make('vlp_gym:vlp/Reach', reward='env').spec.max_episode_steps)"
    )
    assert steps == vlp_gym.MAX_EPISODE_STEPS


@pytest.mark.parametrize("name", vlp_gym.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(vlp_gym, name) is not None
    assert name in dir(vlp_gym)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'wrapp'"):
        vlp_gym.wrapp  # noqa: B018


def test_importing_took_less_than_half_a_second_when_it_was_measured() -> None:
    from benchmarks.schema import read_records

    seconds = {each.method: each.metrics.get("seconds") for each in read_records("imports")}
    assert seconds["import vlp_gym"] is not None
    assert seconds["import vlp_gym"] < 0.5
