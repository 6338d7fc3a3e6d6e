"""The main job: a run does what its folder says, and goes on after a stop as if there was none."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from stable_baselines3 import SAC

from agents import pebble, run
from agents.command_line import command_line
from tests.tiny_vlp import tiny_checkpoint
from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.state_file import load_state
from vlp_gym.feedback.table import LabelTable
from vlp_gym.labelers.store import StoreConfig, export_store

TINY = pebble.Config(
    task="ButtonPress",
    labeler="oracle",
    steps=160,
    # Saved at 60 and 120: in the middle of an episode, between sessions.
    max_episode_steps=50,
    feedback=FeedbackConfig(
        budget=12,
        queries_per_session=4,
        first_session=45,
        session_every=40,
        segment_length=20,
        recent_episodes=2,
        query="disagreement",
        candidates_per_query=2,
    ),
    sac=pebble.SacConfig(width=8, learning_starts=30, batch_size=8, buffer_size=100),
    evaluate_every=80,
    evaluation_episodes=1,
    final_episodes=1,
    checkpoint_every=60,
    video_episodes=0,
    device="cpu",
    quiet=True,
)


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def stop_after_checkpoint(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    save = run.save_checkpoint

    def save_and_stop(folder: Path, step: int, write: Any) -> Path:
        path = save(folder, step, write)
        if step >= at:
            raise Killed
        return path

    monkeypatch.setattr(run, "save_checkpoint", save_and_stop)


def without_times(value: Any) -> Any:
    """Return a state without wall-clock times, arrays as lists; NaN equals NaN."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.startswith("seconds")}
    if isinstance(value, list):
        return [without_times(each) for each in value]
    return repr(value.tolist()) if isinstance(value, np.ndarray) else repr(value)


def saved_state(checkpoint: Path) -> Any:
    """Return the state of a checkpoint such that it can be compared."""
    state = without_times(load_state(checkpoint / "state.npz"))
    # The type checker of these tests draws from Python's generator; nothing of a run does.
    del state["random"]["python"]
    return state


def assert_same_end(first: Path, second: Path) -> None:
    ends = [run.last_checkpoint(folder) for folder in (first, second)]
    assert ends[0].name == ends[1].name
    agents = [SAC.load(end / "agent.zip", device="cpu").get_parameters() for end in ends]
    for part in agents[0]:
        for a, b in zip(leaves(agents[0][part]), leaves(agents[1][part]), strict=True):
            assert torch.equal(a, b), f"{part} differs"
    replays = [np.load(end / "replay.npz") for end in ends]
    for name in replays[0].files:
        np.testing.assert_array_equal(replays[0][name], replays[1][name], err_msg=name)
    states = [saved_state(end) for end in ends]
    for part in states[0]:
        assert states[0][part] == states[1][part], f"{part} differs"
    tables = [LabelTable.load(folder / "labels.parquet") for folder in (first, second)]
    for name in set(tables[0].names) - {"seconds"}:
        np.testing.assert_array_equal(tables[0].column(name), tables[1].column(name), err_msg=name)


def curve_of(folder: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def leaves(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list | tuple):
        return [leaf for value in tree for leaf in leaves(value)]
    return [torch.as_tensor(tree)] if isinstance(tree, torch.Tensor | int | float) else []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    pebble.learn(replace(TINY, out=folder, video_episodes=1, video_size_px=64))
    return folder


def test_stop_and_resume_equals_uninterrupted(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_after_checkpoint(monkeypatch, 120)
        with pytest.raises(Killed):
            pebble.learn(replace(TINY, out=tmp_path / "run"))
    assert run.last_checkpoint(tmp_path / "run").name == "step_00000120"
    torch.manual_seed(99)
    np.random.seed(99)
    pebble.go_on(tmp_path / "run")
    assert_same_end(uninterrupted, tmp_path / "run")
    assert curve_of(uninterrupted) == curve_of(tmp_path / "run")


def test_resume_is_exact_with_drawn_labels_lasting_noise_and_rare_updates(tmp_path: Path) -> None:
    sac = replace(TINY.sac, use_sde=True, train_freq=7, gradient_steps=2)
    judge = tiny_checkpoint(tmp_path / "judge")
    config = replace(TINY, sac=sac, labeler="vlp", checkpoint=judge, task="DoorClose", seed=5)
    pebble.learn(replace(config, out=tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as context:
        stop_after_checkpoint(context, 60)
        with pytest.raises(Killed):
            pebble.learn(replace(config, out=tmp_path / "run"))
    pebble.go_on(tmp_path / "run")
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_another_scorer_labels_with_its_settings_and_its_scores_are_kept(tmp_path: Path) -> None:
    config = replace(
        TINY,
        labeler="vlmrm",
        checkpoint=Path("bundled"),
        settings=("alpha=0.5", "baseline=button", "n_frames=2"),
        steps=60,
        out=tmp_path / "run",
    )
    assert pebble.learn(config)["method"] == "vlmrm"
    table = LabelTable.load(tmp_path / "run" / "labels.parquet")
    assert len(table) == 4 and np.isfinite(table.column("first_score")).all()
    export_store(StoreConfig(tmp_path / "run" / "labels.sqlite"))
    (asked,) = set(pq.read_table(tmp_path / "run" / "labels-scores.parquet")["scorer"].to_pylist())
    assert '"alpha": 0.5' in asked and '"button"' in asked


MANY = replace(
    TINY,
    n_envs=2,
    task="DoorClose",
    labeler="noisy",
    feedback=replace(TINY.feedback, unsupervised=True, explore_bonus=0.1, query="entropy+k-center"),
)


def test_resume_is_exact_with_several_envs_pre_training_and_a_noisy_teacher(tmp_path: Path) -> None:
    pebble.learn(replace(MANY, out=tmp_path / "whole"))
    for at in (60, 120):
        folder = tmp_path / f"run {at}"
        with pytest.MonkeyPatch.context() as context:
            stop_after_checkpoint(context, at)
            with pytest.raises(Killed):
                pebble.learn(replace(MANY, out=folder))
        np.random.seed(99)
        pebble.go_on(folder)
        assert_same_end(tmp_path / "whole", folder)
        assert curve_of(tmp_path / "whole") == curve_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_a_run_that_is_killed_again_and_again_ends_where_it_would_have(
    tmp_path: Path, processes: bool
) -> None:
    judge = tiny_checkpoint(tmp_path / "judge")
    config = replace(
        MANY, labeler="vlp", checkpoint=judge, processes=processes, checkpoint_every=20
    )
    whole, folder = tmp_path / "whole", tmp_path / "run"
    pebble.learn(replace(config, out=whole))
    run.write_config(folder, replace(config, out=folder))
    code = (
        "import sys; from pathlib import Path; from agents import pebble, run\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    if run.checkpoints(folder): pebble.go_on(folder)\n"
        "    else:\n"
        "        config = run.read_config(folder, pebble.Config)\n"
        "        (folder / 'config.json').unlink(); pebble.learn(config)\n"
    )
    program = tmp_path / "program.py"
    program.write_text(code)
    clone = Path(pebble.__file__).parents[1]
    path = {**os.environ, "PYTHONPATH": str(clone)}
    moments = np.random.default_rng()
    for _ in range(6):
        process = subprocess.Popen([sys.executable, str(program), str(folder)], cwd=clone, env=path)
        n_steps = len(run.checkpoints(folder)) and int(run.last_checkpoint(folder).name[5:])
        while process.poll() is None:
            done = run.checkpoints(folder)
            if done and int(done[-1].name[5:]) > n_steps:
                time.sleep(float(moments.uniform(0, 2.0)))  # into whatever comes after a checkpoint
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
        if not (folder / "config.json").exists():
            run.write_config(folder, replace(config, out=folder))
    pebble.go_on(folder)
    assert_same_end(whole, folder)


def test_a_killed_process_leaves_a_run_that_goes_on(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run.write_config(folder, replace(TINY, out=folder))
    code = (
        "from pathlib import Path; from agents import pebble, run; import os;"
        f"folder = Path({str(folder)!r}); config = run.read_config(folder, pebble.Config);"
        "(folder / 'config.json').unlink(); pebble.learn(config)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(pebble.__file__).parents[1])
    give_up = time.monotonic() + 120
    while not run.checkpoints(folder) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    pebble.go_on(folder)
    assert_same_end(uninterrupted, folder)


def test_two_runs_of_one_seed_are_equal(uninterrupted: Path, tmp_path: Path) -> None:
    # Evaluations draw nothing from the generators of the run.
    config = replace(TINY, out=tmp_path / "run", evaluation_episodes=2, evaluate_every=50)
    pebble.learn(config)
    replays = [np.load(run.last_checkpoint(f) / "replay.npz") for f in (uninterrupted, config.out)]
    for name in replays[0].files:
        np.testing.assert_array_equal(replays[0][name], replays[1][name], err_msg=name)


def test_a_run_leaves_all_that_it_promises(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    files = "config.json curve.csv curve.png sessions.csv labels.parquet final.mp4 result.json"
    assert names == {*files.split(), "checkpoints", "tensorboard", "episodes"}
    assert all(path.stat().st_size for path in uninterrupted.iterdir())
    rows = curve_of(uninterrupted)
    assert [row["step"] for row in rows] == ["0", "80", "160"]
    assert [row["queries"] for row in rows] == ["0", "4", "12"]
    sessions = list(csv.DictReader((uninterrupted / "sessions.csv").read_text().splitlines()))
    assert [session["step"] for session in sessions] == ["45", "85", "125"]
    table = LabelTable.load(uninterrupted / "labels.parquet")
    assert table.n_labelled == 12


def test_the_result_says_what_was_run_and_reached(uninterrupted: Path) -> None:
    result = json.loads((uninterrupted / "result.json").read_text())
    assert (result["task"], result["method"], result["seed"]) == ("ButtonPress", "oracle", 0)
    assert result["instruction"] == "press the button"
    assert 0 <= result["before"]["success"] <= 1
    assert result["after"]["label_accuracy"] == 1.0
    assert {"commit", "machine", "versions"} <= set(result)
    assert result["after"]["step"] == 160


def test_the_replay_buffer_wrapped_round_and_was_relabelled_whole(uninterrupted: Path) -> None:
    # 160 steps into 100 rows; the last session is at 125, so rows of before it are still there.
    replay = np.load(run.last_checkpoint(uninterrupted) / "replay.npz")
    assert bool(replay["full"])
    assert (replay["rewards"] != 0).all()


def test_the_simulators_reward_needs_no_feedback(tmp_path: Path) -> None:
    config = replace(TINY, reward="env", out=tmp_path / "run", steps=40)
    result = pebble.learn(config)
    assert result["method"] == "env"
    assert not (tmp_path / "run" / "labels.parquet").exists()
    replay = np.load(run.last_checkpoint(tmp_path / "run") / "replay.npz")
    assert (replay["rewards"] > 0).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"task": "ButtonPres"}, UnknownNameError, "did you mean 'ButtonPress'"),
        ({"instruction": "  "}, InstructionError, "instruction"),
        ({"max_episode_steps": 10}, ValueError, "segment_length"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pebble.learn(replace(TINY, out=tmp_path / "run", **change))
    assert not run.checkpoints(tmp_path / "run")


def test_noise_that_would_not_last_is_refused() -> None:
    with pytest.raises(ValueError, match="train_freq and gradient_steps to 8"):
        pebble.SacConfig(use_sde=True)


def exit_code(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Return what `python -m agents.pebble` exits with."""
    monkeypatch.setattr(sys, "argv", ["agents.pebble", *words])
    with pytest.raises(SystemExit) as exit_:
        command_line(pebble.Config, pebble.learn, pebble.go_on, pebble.__doc__)
    return exit_.value.code


def test_the_command_line_has_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for option in ("--task", "--instruction", "--sac.use-sde", "--feedback.fit.lr", "--resume"):
        assert option in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n-envs", "0"], "n_envs must be 1 or more"),
        (["--feedback.budget", "-1"], "budget"),
        (["--task", "ButtonPres", "--quiet"], "did you mean 'ButtonPress'"),
        (["--resume", "nowhere"], "nowhere"),
        (["--resume", "nowhere", "--seed", "1"], "--resume FOLDER stands alone"),
    ],
)
def test_a_wrong_command_line_is_answered_without_a_traceback(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = exit_code(monkeypatch, *words)
    assert message in str(answer) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "stop"), [(0, 60), (59, 60), (60, 80), (80, 120), (120, 160), (159, 160)]
)
def test_stops_are_the_multiples_of_both_periods(step: int, stop: int) -> None:
    assert pebble.next_stop(step, TINY) == stop
