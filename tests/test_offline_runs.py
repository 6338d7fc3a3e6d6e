"""Offline runs: seeds together are seeds alone, a kill costs nothing, labels decide, and files say what was done."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import cpl, ipl, iql, learning, offline, piql, run
from agents.draws import Batches, Dropout
from agents.evaluation import Evaluation, evaluate
from agents.offline_journal import Journal
from agents.parallel_evaluation import Judge, WithoutLastGripper, fitted
from agents.statistics import bootstrap_interval, interquartile_mean, summarise
from tests.tiny_offline import make_comparisons, make_trajectories, make_transitions, write_pairs
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.errors import DataError
from vlp_gym.feedback.state_file import load_state

TINY_IQL = iql.IQLConfig(hidden=(24, 24), learning_rate=3e-3)
TINY: dict[str, Any] = {"steps": 12, "batch_size": 7, "device": "cpu"}


def make_cpl(seeds: tuple[int, ...], data: Comparisons, **options: Any) -> cpl.CPL:
    settings = {"hidden": (24, 24), "bc_steps": 4, "warmup_steps": 3, "learning_rate": 3e-3, **TINY}
    return cpl.CPL(cpl.Config(pairs=Path(), seeds=seeds, **{**settings, **options}), data)


AGENTS: dict[str, Callable[[tuple[int, ...]], learning.Learner]] = {
    "iql": lambda seeds: iql.IQL(
        iql.Config(data=Path(), seeds=seeds, iql=TINY_IQL, **TINY), make_transitions()
    ),
    "piql": lambda seeds: piql.PIQL(
        piql.Config(pairs=Path(), seeds=seeds, iql=TINY_IQL, reward_hidden=(24,), reward_steps=8, **TINY),
        make_comparisons(),
    ),
    "piql on trajectories": lambda seeds: piql.PIQL(
        piql.Config(pairs=Path(), seeds=seeds, iql=TINY_IQL, reward_hidden=(24,), replay_batch_size=9, **TINY),
        make_comparisons(),
        make_transitions(),
    ),
    "ipl": lambda seeds: ipl.IPL(
        ipl.Config(pairs=Path(), seeds=seeds, hidden=(24, 24), window=4, replay_batch_size=9, **TINY),
        make_comparisons(),
        make_transitions(),
    ),
    "cpl": lambda seeds: make_cpl(seeds, make_comparisons()),
    "cpl-kl": lambda seeds: make_cpl(seeds, make_comparisons(), variant="cpl-kl"),
}  # fmt: skip


def members_of(learner: learning.Learner, n_seeds: int, seed: int) -> dict[str, np.ndarray]:
    """Return the weights of one seed."""
    return {
        name: value.reshape(n_seeds, -1, *value.shape[1:])[seed]
        for name, value in learning.learner_state(learner)["networks"].items()
    }


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", AGENTS)
def test_a_seed_among_others_learns_bit_for_bit_what_it_learns_alone(
    name: str, one_thread: Any
) -> None:
    together = AGENTS[name]((3, 0, 7))
    infos = [together.update() for _ in range(12)]
    for place, seed in enumerate((3, 0, 7)):
        alone = AGENTS[name]((seed,))
        for info in infos:
            for part, value in alone.update().items():
                assert value[0] == info[part][place], part
        expected = members_of(alone, 1, 0)
        for part, value in members_of(together, 3, place).items():
            np.testing.assert_array_equal(value, expected[part], err_msg=part)
        obs = torch.randn(4, 5)
        torch.testing.assert_close(together.act(obs, place), alone.act(obs, 0), rtol=0, atol=0)


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_saved_is_all_that_the_rest_depends_on(name: str) -> None:
    whole, half = AGENTS[name]((0, 1)), AGENTS[name]((0, 1))
    for _ in range(12):
        whole.update()
    for _ in range(5):
        half.update()
    resumed = AGENTS[name]((0, 1))
    learning.load_learner_state(resumed, learning.learner_state(half))
    while resumed.step < 12:
        resumed.update()
    ends = [learning.learner_state(each) for each in (whole, resumed)]
    for part in ("networks", "optimizers"):
        np.testing.assert_equal(ends[0][part], ends[1][part])


def test_the_value_that_judges_regret_is_the_one_that_was_learned() -> None:
    learner = AGENTS["iql"]((0, 1))
    assert isinstance(learner, iql.IQL)
    for _ in range(3):
        learner.update()
    obs = torch.randn(6, 5)
    for seed in (0, 1):
        expected = learner.core.value.of_seed(obs, seed).flatten().detach()
        np.testing.assert_allclose(learner.value_of(seed)(obs.numpy()), expected, atol=1e-6)
    assert not isinstance(AGENTS["cpl"]((0,)), learning.HasValue)


def test_a_state_of_other_data_is_refused() -> None:
    state = learning.learner_state(make_cpl((0,), make_comparisons()))
    with pytest.raises(ValueError, match="begun with other data"):
        learning.load_learner_state(make_cpl((0,), make_comparisons(seed=9)), state)


def test_every_row_of_an_epoch_comes_once() -> None:
    batches = Batches((0, 5), "rows", n_rows=10, size=4)
    rows = np.concatenate([batches.at(step) for step in range(10)], axis=1)
    for of_seed in rows.reshape(2, 4, 10):
        for epoch in of_seed:
            assert sorted(epoch) == list(range(10))
    assert (rows[0] != rows[1]).any()
    large = Batches((0,), "rows", n_rows=3, size=8).at(1)
    assert (np.bincount(large[0]) >= 2).all()


def test_dropout_keeps_the_mean_and_follows_seed_step_and_layer() -> None:
    dropout = Dropout((0, 1), 0.25, torch.device("cpu"))
    mask = dropout.at(3, 0, 200, 100)
    assert mask is not None
    assert set(np.unique(mask)) == {0.0, np.float32(4 / 3)}
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(mask, dropout.at(3, 0, 200, 100))
    for other in (dropout.at(4, 0, 200, 100), dropout.at(3, 1, 200, 100), mask.flip(0)):
        assert not torch.equal(mask, other)
    alone = Dropout((1,), 0.25, torch.device("cpu")).at(3, 0, 200, 100)
    assert torch.equal(mask[1:], alone)
    assert Dropout((0,), 0.0, torch.device("cpu")).at(0, 0, 1, 1) is None
    with pytest.raises(ValueError, match="dropout"):
        Dropout((0,), 1.0, torch.device("cpu"))


def preferring_large_actions(n_pairs: int = 60, steps: int = 8) -> Comparisons:
    """Return pairs in which the segment of the higher first action is preferred."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2 * n_pairs, steps, 3)).astype(np.float32)
    level = rng.uniform(-0.9, 0.9, (2 * n_pairs, 1, 1))
    action = np.clip(level + 0.05 * rng.normal(size=(2 * n_pairs, steps, 1)), -1, 1)
    pairs = np.arange(2 * n_pairs).reshape(n_pairs, 2)
    worth = action.sum((1, 2))[pairs]
    label = (worth[:, 1] > worth[:, 0]).astype(np.float32)
    return Comparisons(obs, action.astype(np.float32), pairs, label, np.ones(n_pairs, np.float32))


PREFERRING: dict[str, Callable[[Comparisons], learning.Learner]] = {
    "cpl": lambda data: make_cpl(
        (0, 1), data, steps=300, bc_steps=20, warmup_steps=10, batch_size=30, dropout=0.0
    ),
    "piql": lambda data: piql.PIQL(
        piql.Config(
            pairs=Path(), seeds=(0, 1), steps=300, batch_size=30, reward_steps=200, reward_hidden=(24, 24),
            iql=replace(TINY_IQL, dropout=0.0, discount=0.5, polyak=0.1), device="cpu",
        ),
        data,
    ),
    "ipl": lambda data: ipl.IPL(
        ipl.Config(
            pairs=Path(), seeds=(0, 1), steps=300, batch_size=30, window=None, hidden=(24, 24), discount=0.5,
            learning_rate=3e-3, regularization=0.5, polyak=0.1, device="cpu",
        ),
        data,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREFERRING)
def test_flipped_labels_teach_the_opposite(name: str) -> None:
    data = preferring_large_actions()
    obs = torch.from_numpy(data.obs[:10].reshape(-1, 3))
    learners = [PREFERRING[name](each) for each in (data, data.flipped())]
    for learner in learners:
        for _ in range(300):
            learner.update()
    for seed in (0, 1):
        told, flipped = (learner.act(obs, seed).mean().item() for learner in learners)
        assert told > flipped + 0.2
        assert told > data.action.mean() > flipped


def tiny_run(folder: Path, out: str, **options: Any) -> cpl.Config:
    data, pairs = folder / "ButtonPress.npz", folder / "ButtonPress.labels.parquet"
    if not pairs.exists():
        write_pairs(folder)
    settings: dict[str, Any] = {
        "pairs": pairs, "trajectories": data, "seeds": (2, 0), "steps": 8, "bc_steps": 3, "warmup_steps": 2,
        "batch_size": 4, "hidden": (8, 8), "evaluate_every": 3, "checkpoint_every": 4, "evaluation_episodes": 2,
        "max_episode_steps": 6, "video_episodes": 0, "device": "cpu", "threads": 1, "quiet": True,
        "out": folder / out,
    }  # fmt: skip
    return cpl.Config(**{**settings, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> cpl.Config:
    config = tiny_run(
        tmp_path_factory.mktemp("offline"), "whole", video_episodes=1, video_size_px=64
    )
    offline.learn(config, cpl.make)
    return config


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def curve_of(folder: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((folder / "curve.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_end(first: Path, second: Path) -> None:
    states = [load_state(run.last_checkpoint(each) / "state.npz") for each in (first, second)]
    np.testing.assert_equal(states[0]["learner"], states[1]["learner"])
    assert curve_of(first) == curve_of(second)


def test_a_run_leaves_all_that_it_promises(whole: cpl.Config) -> None:
    assert whole.out is not None
    names = {path.name for path in whole.out.iterdir()}
    files = "config.json curve.csv curve.png result.json final-seed0.mp4 final-seed2.mp4"
    assert names == {*files.split(), "checkpoints", "tensorboard"}
    assert {path.name for path in (whole.out / "tensorboard").iterdir()} == {"seed0", "seed2"}
    rows = curve_of(whole.out)
    assert [(row["step"], row["seed"]) for row in rows] == [
        (step, seed) for step in ("0", "3", "6", "8") for seed in ("2", "0")
    ]
    assert all(float(row["bc_loss"]) > 0 for row in rows[2:])
    assert [bool(row["cpl_loss"]) for row in rows] == [False] * 4 + [True] * 4
    result = json.loads((whole.out / "result.json").read_text())
    assert (result["task"], result["method"], result["seeds"]) == ("ButtonPress", "CPL", [2, 0])
    assert len(result["env_return"]["per_seed"]) == 2
    assert {"commit", "machine", "versions", "fingerprint"} <= set(result)


def test_a_stopped_run_ends_as_one_that_was_never_stopped(
    whole: cpl.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.out is not None
    config = replace(whole, out=tmp_path / "run", video_episodes=0)
    save = run.save_checkpoint

    def save_and_stop(*args: Any) -> Path:
        save(*args)
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(run, "save_checkpoint", save_and_stop)
        with pytest.raises(Killed):
            offline.learn(config, cpl.make)
    assert run.last_checkpoint(tmp_path / "run").name == "step_00000004"
    torch.manual_seed(99)
    np.random.seed(99)
    offline.go_on(tmp_path / "run", cpl.Config, cpl.make)
    assert_same_end(whole.out, tmp_path / "run")


def test_a_killed_process_leaves_a_run_that_goes_on(whole: cpl.Config, tmp_path: Path) -> None:
    assert whole.out is not None
    command = [
        sys.executable, "-m", "agents.cpl", "--pairs", str(whole.pairs), "--seeds", "2", "0", "--steps", "8",
        "--bc-steps", "3", "--warmup-steps", "2", "--batch-size", "4", "--hidden", "8", "8", "--evaluate-every", "3",
        "--checkpoint-every", "4", "--evaluation-episodes", "2", "--max-episode-steps", "6", "--video-episodes", "0",
        "--device", "cpu", "--threads", "1", "--quiet", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(cpl.__file__).parents[1])
    give_up = time.monotonic() + 120
    while (
        not run.checkpoints(tmp_path / "run")
        and process.poll() is None
        and time.monotonic() < give_up
    ):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    offline.go_on(tmp_path / "run", cpl.Config, cpl.make)
    assert_same_end(whole.out, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "DoorClose"}, "of ButtonPress, and the policy is to be evaluated in DoorClose"),
        ({"seeds": (1, 1)}, "several different ones"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"bias": 0.0}, "bias"),
        ({"variant": "cpl-kl", "bc_steps": 0}, "needs a cloned policy"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        offline.learn(tiny_run(tmp_path, "run", **change), cpl.make)
    assert not (tmp_path / "run").exists()


def test_pairs_of_other_trajectories_are_refused_before_training(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "run")
    make_trajectories(seed=8).save(tmp_path / "ButtonPress.npz")
    with pytest.raises(DataError, match="cut from another data set"):
        offline.learn(config, cpl.make)
    assert not (tmp_path / "run").exists()


def test_an_unknown_layout_is_refused_before_training(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "run", task="ButtonPress")
    with pytest.raises(DataError, match="have 5 numbers; those of Meta-World have 39, or 35"):
        offline.learn(
            config, lambda config: cpl.CPL(config, make_comparisons(obs_dim=5, action_dim=4))
        )
    assert not (tmp_path / "run").exists()


def test_replay_of_another_task_is_refused() -> None:
    data = make_comparisons(task_name="DoorClose")
    replay = make_transitions(task_name="DoorOpen")
    with pytest.raises(DataError, match="the same task and layout"):
        ipl.IPL(ipl.Config(pairs=Path(), window=4, device="cpu"), data, replay)
    with pytest.raises(DataError, match="the same task and layout"):
        piql.PIQL(piql.Config(pairs=Path(), device="cpu"), data, replay)


def test_an_error_of_the_user_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents.piql", "--pairs", str(tmp_path / "none.parquet")]
    done = subprocess.run(
        command, cwd=Path(cpl.__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be read as a label table" in done.stderr
    assert "Traceback" not in done.stderr


def test_episodes_side_by_side_are_those_one_after_the_other() -> None:
    import gymnasium as gym

    judge = Judge("DrawerClose", 39, episodes=3, max_episode_steps=20, parallel="sync")
    weights = np.random.default_rng(0).normal(size=(39, 4)) * 3

    def batch_policy(obs: Any) -> Any:
        return np.tanh(obs @ weights).astype(np.float32)

    env = gym.make("vlp/DrawerClose", labeler=None, reward="env", max_episode_steps=20)
    for seed in (4, 5):
        found = judge(batch_policy, seed)
        expected = evaluate(lambda obs: batch_policy(obs[None])[0], env, 3, seed)
        assert isinstance(found, Evaluation)
        assert found.success == expected.success
        assert found.final_success == expected.final_success
        assert found.env_return == pytest.approx(expected.env_return, rel=1e-6)
    judge.close()


def test_cpls_layout_leaves_the_last_gripper_out() -> None:
    import gymnasium as gym

    env = gym.make("vlp/ButtonPress", labeler=None, reward="env")
    plain, _ = env.reset(seed=0)
    wrapped = fitted(env, 35)
    assert isinstance(wrapped, WithoutLastGripper)
    obs, _ = wrapped.reset(seed=0)
    np.testing.assert_array_equal(obs, np.concatenate([plain[:18], plain[22:]]))
    assert wrapped.observation_space.contains(obs)
    assert fitted(env, 39) is env


def test_the_papers_number_is_the_best_of_averages_and_stands_beside_honest_ones() -> None:
    curve = np.array([[0.0, 0.2], [1.0, 0.6], [0.8, 0.8], [0.0, 0.4]])
    found = summarise(curve, window=2, n_last=2)
    assert found.last == pytest.approx(0.2)
    assert found.mean_of_last == pytest.approx(0.5)
    assert found.papers == pytest.approx(0.8)
    assert found.papers_std == pytest.approx(0.1)
    assert found.per_seed == pytest.approx((0.4, 0.6))
    assert summarise(curve[:1], window=8, n_last=4).papers == pytest.approx(0.1)


def test_intervals_hold_the_mean_of_the_middle_half() -> None:
    values = np.random.default_rng(0).uniform(size=(5, 6))
    middle = np.sort(values.ravel())[7:-7].mean()
    assert interquartile_mean(values) == pytest.approx(middle, abs=0.02)
    low, high = bootstrap_interval(values)
    assert low < interquartile_mean(values) < high
    assert bootstrap_interval(values, coverage=0.5)[0] > low
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(np.full((2, 3), 0.4)) == pytest.approx((0.4, 0.4))


def test_a_journal_means_over_the_steps_in_which_something_was_measured() -> None:
    journal = Journal()
    journal.note({"a": torch.tensor([1.0, 2.0])})
    journal.note({"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([5.0, 5.0])})
    journal = Journal.of_state(journal.state(), torch.device("cpu"))
    journal.add(0, (0, 1), [Evaluation(0.5, 0.0, 1.0, 2)] * 2)
    assert [(row["a"], row["b"]) for row in journal.rows] == [(2.0, 5.0), (2.0, 5.0)]
