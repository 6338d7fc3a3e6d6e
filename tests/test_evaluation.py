"""What an evaluation of a preference model says, and refuses to say."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from benchmarks import preference_model
from benchmarks.schema import read_records
from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    GRID,
    SENTENCES,
    TEST,
    TRAIN,
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, DataError, SettingError
from vlp_gym.tasks.splits import SPLITS, Split
from vlp_gym.training.behaviours import LEVELS
from vlp_gym.training.clips import clips_of
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.evaluation import EvaluateConfig, _succeeding, _turned, evaluate
from vlp_gym.training.trainer import train


def test_evaluation_reads_what_training_wrote(data: Path, cache: Path, tmp_path: Path) -> None:
    checkpoint = train(config(data, cache, tmp_path / "run"))
    out = tmp_path / "r.json"
    result = evaluate(
        EvaluateConfig(checkpoint, data, cache, "tiny", n_pairs=60, device="cpu", out=out)
    )
    assert [task.task_name for task in result.tasks] == list(TEST)
    signed, unbounded = ("rank_correlation", "paper_phi"), ("ilp_gap", "ilp_delta", "ilp_loss")
    assert all(0 <= v <= 1 for k, v in result.mean.items() if k not in (*signed, *unbounded))
    assert all(-1 <= result.mean[name] <= 1 for name in signed)
    # Jensen: the loss of the mean gap is below the mean loss; ln 2 + gap / 2 is above every one.
    gap, loss = result.mean["ilp_gap"], result.mean["ilp_loss"]
    assert np.log(2 * np.cosh(gap / 2)) <= loss <= np.log(2) + gap / 2
    written = json.loads(out.read_text())
    assert written["tasks"]["DoorClose"]["itp"] == result.tasks[0].itp
    for task in result.tasks:
        episodes = Trajectories.load(data / f"{task.task_name}.npz")
        paid = [episodes.env_reward[episodes.of_behaviour(name)].mean() for name in LEVELS]
        right = [low < high for low, high in combinations(paid, 2)]
        assert (task.itp_of_return == 1) == all(right)
        assert (task.itp_of_return > 0) == any(right)
    # IVP and the table of which task beats which say the same.
    assert written["beats"]["DoorClose"]["DrawerClose"] == pytest.approx(1 - result.tasks[0].ivp)
    assert written["beats"]["DoorClose"]["DoorClose"] == 0.5
    # Every pair counts both ways round under every sentence.
    assert sum(written["calibration"]["DoorClose"]["count"]) > 60
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark_writes_what_the_evaluation_found(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    checkpoint = train(config(data, cache, tmp_path / "run"))
    found = evaluate(EvaluateConfig(checkpoint, data, cache, "tiny", n_pairs=60, device="cpu"))
    preference_model.measure(
        preference_model.Config(
            checkpoint, data, cache, "tiny", n_pairs=60, device="cpu", results=tmp_path
        )
    )
    models = {each.task: each.metrics for each in read_records("preference_model", tmp_path)}
    levels = {each.task: each.metrics for each in read_records("levels", tmp_path)}
    for task in found.tasks:
        assert models[task.task_name]["ITP"] == task.itp
        assert levels[task.task_name]["expert over medium"] == task.expert_medium
    assert models["mean"]["ITP"] == found.mean["itp"]
    words = {each.method: each.metrics for each in read_records("languages", tmp_path)}
    lost = [
        task.languages["unseen"].itp - task.languages["correct_colour"].itp for task in found.tasks
    ]
    assert words["correct colour"]["most lost in a task"] == max(lost)
    assert words["correct colour"]["ITP"] == pytest.approx(words["unseen"]["ITP"] - fmean(lost))


def test_windows_in_success_are_ordered_by_how_long_they_stay_in_it(data: Path) -> None:
    clips = clips_of(Trajectories.load(data / "DoorClose.npz"), GRID, n_frames=3)
    rng = np.random.default_rng(0)
    clips = dataclasses.replace(clips, success=rng.choice([0.0, 0.2, 0.6, 1.0], len(clips)))
    # What is said of windows that are never in success, and of whole trajectories, does not matter.
    others = np.where((clips.success == 0) | clips.whole, rng.normal(size=len(clips)), 0)

    def ordered(score: np.ndarray) -> float | None:
        return _succeeding((score + others)[None], clips, 200, np.random.default_rng(0))

    assert ordered(clips.success) == 1.0
    assert ordered(-clips.success) == 0.0
    assert ordered(0 * clips.success) == 0.5
    alike = dataclasses.replace(clips, success=np.ceil(clips.success))
    assert _succeeding(clips.success[None], alike, 200, rng) is None
    nobody = dataclasses.replace(clips, success=0 * clips.success)
    assert _succeeding(clips.success[None], nobody, 200, rng) is None
    # One that differs among many may be in none of the pairs.
    odd = dataclasses.replace(clips, success=np.where(np.arange(len(clips)) == 0, 0.5, 1.0))
    assert {_succeeding(odd.success[None], odd, 1, rng) for _ in range(200)} == {None, 1.0}


def test_the_opposite_sentence_turns_labels_round_or_does_not() -> None:
    own = np.random.default_rng(0).normal(size=(2, 5))
    whole, level = np.array([1, 3, 4]), np.array([-1.0, 0.0, -1.0, 1.0, 1.0])
    pairs = np.array([[1, 3], [3, 4], [4, 1]])  # the second ties
    same = own[:1].repeat(2, axis=0)
    assert _turned(same, -same[:, whole], whole, pairs, level) == 1.0
    assert _turned(same, same[:, whole], whole, pairs, level) == 0.0
    assert _turned(same, np.stack([same[0, whole], -same[0, whole]]), whole, pairs, level) == 0.5


def test_a_model_is_not_judged_on_tasks_that_it_was_trained_on(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = train(config(data, cache, tmp_path / "run"))
    monkeypatch.setitem(SPLITS, "leaky", Split(("DoorClose",), ("DoorOpen",)))
    with pytest.raises(CheckpointError, match="trained on test tasks"):
        evaluate(EvaluateConfig(checkpoint, data, cache, "leaky"))


def test_what_the_data_do_not_have_is_left_out_of_an_evaluation(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    """The paper's own data set has the three levels alone."""
    checkpoint = train(config(data, cache, tmp_path / "run"))
    levels = CollectConfig(
        out=tmp_path / "mtvlp", tasks=TEST, episodes=dict.fromkeys(LEVELS, 2), n_steps=60, workers=1
    )
    mine = EvaluateConfig(
        checkpoint,
        collect(levels),
        cache,
        "tiny",
        n_pairs=60,
        device="cpu",
        out=tmp_path / "r.json",
    )
    found = evaluate(mine)
    assert all(task.exploring is None and task.windows is not None for task in found.tasks)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["mean"]["exploring"] is None and written["mean"]["windows"] > 0
    no_experts = dataclasses.replace(
        levels, out=tmp_path / "two", episodes={"medium": 1, "random": 1}
    )
    with pytest.raises(DataError, match="no episodes of expert"):
        evaluate(dataclasses.replace(mine, data=collect(no_experts)))
    with pytest.raises(SettingError, match="n_pairs must be 10 or more, got 0"):
        EvaluateConfig(n_pairs=0)


def test_an_evaluation_says_which_test_tasks_are_known_from_one_that_undoes(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    checkpoint = train(config(data, cache, tmp_path / "run"))
    settings = EvaluateConfig(checkpoint, data, cache, "tiny", n_pairs=60, device="cpu")
    assert evaluate(settings).disclosure is None
    path = checkpoint / "config.json"
    saved = json.loads(path.read_text())
    saved["training"]["undoing"] = ["UndoDoorOpen", "UndoPlateSlideBack"]
    path.write_text(json.dumps(saved))
    found = evaluate(settings)
    assert found.as_json()["twins"] == {"DoorClose": "UndoDoorOpen"}
    assert found.disclosure is not None and "DoorClose (UndoDoorOpen)" in found.disclosure
    assert found.__rich__().caption == found.disclosure
