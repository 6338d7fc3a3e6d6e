"""Labelled pairs: where they come from, and what is refused before a training begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TASK, make_episode, make_pair
from tests.tiny_offline import make_comparisons, make_trajectories, make_transitions, write_pairs
from vlp_gym.data.cpl import labels_of_scores, read_cpl
from vlp_gym.data.transitions import Transitions
from vlp_gym.errors import CheckpointError, DataError
from vlp_gym.feedback.table import LabelTable
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.regret import RegretLabeler, ValueFunction
from vlp_gym.training.labelling import LabelConfig, cut_pairs, label
from vlp_gym.training.pair_files import check_segments, comparisons_of, read_comparisons
from vlp_gym.training.paper_protocol import paper_queries, two_sets
from vlp_gym.types import Labels, Pair, Segment, Status


def nan_at(array: np.ndarray, place: Any) -> np.ndarray:
    array = array.copy()
    array[place] = np.nan
    return array


GOOD = make_comparisons()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": np.full((12, 2), 24)}, "pair 0 is of segments .24, 24., but there are only 24"),
        ({"pairs": np.full((12, 2), -1)}, "there are only 24"),
        ({"action": GOOD.action[:, :-1]}, "cut both at the same places"),
        ({"action": 1.5 * np.sign(GOOD.action)}, r"outside of \[-1, 1\]"),
        ({"action": nan_at(GOOD.action, (0, 0, 0))}, r"outside of \[-1, 1\]"),
        ({"obs": nan_at(GOOD.obs, (3, 2, 1))}, "1 numbers of observations are not finite"),
        ({"label": np.ones(12, np.float32)}, "all 12 labels are 1"),
        ({"label": np.full(12, 0.5, np.float32)}, "all 12 labels are 0.5"),
        ({"label": GOOD.label + 1}, "probability of the second"),
        ({"label": nan_at(GOOD.label, 0)}, "probability of the second"),
        ({"label": GOOD.label[:5]}, "12 pairs need as many labels"),
        ({"weight": np.zeros(12, np.float32)}, "no pair was labelled"),
        ({"weight": -GOOD.weight}, "weights must be 0 or more"),
        ({"obs": GOOD.obs[:, :1], "action": GOOD.action[:, :1]}, "a transition takes two"),
        ({"pairs": GOOD.pairs[:0], "label": GOOD.label[:0], "weight": GOOD.weight[:0]}, "no pair"),
    ],
)  # fmt: skip
def test_pairs_that_teach_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(GOOD, **change)


def test_labels_that_are_equal_wherever_they_count_are_refused() -> None:
    assert len(set(GOOD.label)) > 1
    with pytest.raises(DataError, match="labels are 1"):
        replace(GOOD, weight=(GOOD.label == 1).astype(np.float32))


def test_flipping_twice_gives_the_same_pairs() -> None:
    flipped = GOOD.flipped()
    np.testing.assert_array_equal(flipped.label, 1 - GOOD.label)
    assert flipped.flipped().fingerprint() == GOOD.fingerprint() != flipped.fingerprint()


def test_rewards_that_are_no_numbers_are_refused() -> None:
    good = make_transitions()
    with pytest.raises(DataError, match="1 rewards are not finite"):
        replace(good, reward=nan_at(good.reward, 3))


def test_transitions_join_a_step_to_the_next() -> None:
    data = make_trajectories(n_episodes=3, n_steps=5)
    rows = Transitions.of_trajectories(data)
    assert len(rows) == 3 * 4
    np.testing.assert_array_equal(rows.next_obs[:3], rows.obs[1:4])
    np.testing.assert_array_equal(rows.next_obs[3], data.obs[0, 4])
    np.testing.assert_array_equal(rows.obs[4], data.obs[1, 0])
    np.testing.assert_array_equal(rows.reward[4:8], data.env_reward[1, :4])


def test_one_trajectory_is_refused(tmp_path: Path) -> None:
    data = make_trajectories(n_episodes=1)
    with pytest.raises(DataError, match="1 trajectory, and learning from data needs several"):
        Transitions.of_trajectories(data)
    for kind in ("uniform", "kmeans"):
        config = LabelConfig(tmp_path / "a.npz", pairs=kind, segment_length=5)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="a preference needs two"):
            cut_pairs(data, config, OracleLabeler())


def segments_file(path: Path, n_segments: int = 10, **arrays: Any) -> Path:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "obs": rng.normal(size=(n_segments, 4, 35)),
        "action": rng.uniform(-1, 1, (n_segments, 4, 4)),
        "reward": rng.normal(size=(n_segments, 4)),
        "rl_sum": np.arange(n_segments, dtype=float),
    }
    np.savez(path, **{**columns, **arrays})
    return path


def test_cpls_segments_become_pairs(tmp_path: Path) -> None:
    path = segments_file(tmp_path / "mw.npz", rl_sum=np.array([0.0, 5, 2, 3, 4, 9, 5, 1, 1, 1]))
    data = read_comparisons(path)
    np.testing.assert_array_equal(data.pairs, [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]])
    np.testing.assert_array_equal(data.label, [1, 0.5, 0, 0, 0])
    assert (data.obs.dtype, data.action.dtype) == (np.float32, np.float32)
    assert np.abs(data.action).max() < 1
    first = read_cpl(path, n_segments=6)
    np.testing.assert_array_equal(first.pairs, [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(first.label, [1, 0, 1])


def test_ranked_segments_meet_partners_of_their_own(tmp_path: Path) -> None:
    path = segments_file(tmp_path / "mw.npz")
    data = read_cpl(path, mode="rank", n_pairs=200, seed=3)
    assert (data.pairs[:, 0] != data.pairs[:, 1]).all()
    np.testing.assert_array_equal(data.label, data.pairs[:, 1] > data.pairs[:, 0])
    assert (np.bincount(data.pairs[:, 0]) == 20).all()
    same = read_cpl(path, mode="rank", n_pairs=200, seed=3)
    assert same.fingerprint() == data.fingerprint()


def test_files_of_pairs_keep_their_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(2, 3, 4, 39)), rng.uniform(-1, 1, (2, 3, 4, 4))
    named = {"obs_1": obs[0], "obs_2": obs[1], "action_1": action[0], "action_2": action[1]}
    np.savez(tmp_path / "ipl.npz", label=np.array([0.0, 1.0, 0.5]), **named)
    data = read_comparisons(tmp_path / "ipl.npz")
    np.testing.assert_array_equal(data.label, [0, 1, 0.5])
    np.testing.assert_array_equal(data.obs[data.pairs[:, 1]], obs[1].astype(np.float32))
    np.savez(tmp_path / "uneven.npz", label=np.zeros(3), **{**named, "obs_2": obs[1, :, :3]})
    with pytest.raises(DataError, match="equally long"):
        read_comparisons(tmp_path / "uneven.npz")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"action": np.full((10, 4, 4), 3.0)}, DataError, r"outside of \[-1, 1\]"),
        ({"rl_sum": np.zeros((10, 4))}, DataError, "one number a segment"),
        ({"rl_sum": np.zeros(10)}, DataError, "all 5 labels are 0.5"),
    ],
)
def test_public_files_are_checked_as_well(
    tmp_path: Path, arrays: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_cpl(segments_file(tmp_path / "mw.npz", **arrays))


def test_a_missing_score_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no 'rl_dir'; there are action, obs, reward, rl_sum"):
        read_cpl(segments_file(tmp_path / "mw.npz"), score="rl_dir")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_cpl(tmp_path / "none.npz")


def test_a_clear_order_of_scores_is_a_label() -> None:
    score = np.array([1.0, 2.0, 2.0])
    np.testing.assert_array_equal(labels_of_scores(score, np.array([[0, 1], [1, 2]])), [1, 0.5])


def table_of(values: list[float], statuses: list[Status]) -> LabelTable:
    table = LabelTable()
    pairs = [make_pair(0.0, float(i)) for i in range(len(values))]
    labels = Labels(np.array(values, np.float32), np.array(statuses, np.int8))
    table.append(pairs, labels, session=0, step=0, labeler="fake", seconds=0.0)
    return table


MIXED = table_of(
    [0, 1, np.nan, np.nan], [Status.LABELLED, Status.LABELLED, Status.ABSTAINED, Status.FAILED]
)


@pytest.mark.parametrize(
    ("unsure", "label", "weight"),
    [
        ("tie", [0, 1, 0.5], [1, 1, 1]),
        ("ignore", [0, 1, 0.5], [1, 1, 0]),
        ("drop", [0, 1], [1, 1]),
    ],
)
def test_abstentions_are_ties_or_nothing_and_failures_are_left_out(
    unsure: Any, label: list[float], weight: list[float]
) -> None:
    data = comparisons_of(MIXED, unsure)
    np.testing.assert_array_equal(data.label, label)
    np.testing.assert_array_equal(data.weight, weight)
    assert len(data.obs) == 2 * len(label)


def test_a_table_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match="none of 1 pairs has a label"):
        comparisons_of(table_of([np.nan], [Status.FAILED]))
    with pytest.raises(DataError, match="empty"):
        comparisons_of(LabelTable())


def test_a_label_table_says_its_task_and_where_it_was_cut(tmp_path: Path) -> None:
    path, out = write_pairs(tmp_path)
    table, data = LabelTable.load(out), make_trajectories()
    assert set(table.column("trajectories")) == {data.fingerprint()}
    pairs = read_comparisons(out)
    assert pairs.task_name == "ButtonPress"
    row = 3
    episode, start = table.column("second_episode")[row], table.column("second_start")[row]
    np.testing.assert_array_equal(
        pairs.obs[pairs.pairs[row, 1]], data.obs[episode, start : start + 8]
    )
    check_segments(table, data)
    assert path.exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task": "DoorClose"}, "of ButtonPress, the trajectories of DoorClose"),
        ({"seed": 5}, "cut from another data set"),
        ({"n_episodes": 2}, "there are 2 episodes"),
        ({"n_steps": 9}, "of 9 steps"),
    ],
)
def test_pairs_of_segments_that_are_not_there_are_refused(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    table = LabelTable.load(write_pairs(tmp_path)[1])
    with pytest.raises(DataError, match=message):
        check_segments(table, make_trajectories(**other))


def test_pairs_of_two_tasks_are_refused() -> None:
    table = LabelTable()
    pairs = [make_pair(0.0, 1.0), make_pair(1.0, 0.0)]
    labels = Labels.of(np.array([1, 0]), task=np.array(["DoorOpen", "DoorClose"]))
    table.append(pairs, labels, session=0, step=0, labeler="fake", seconds=0.0)
    with pytest.raises(DataError, match="pairs of DoorClose, DoorOpen"):
        comparisons_of(table)


def test_the_papers_pairs_have_one_segment_of_each_set_in_either_order() -> None:
    data = make_trajectories(n_episodes=12)
    pairs = paper_queries(data, 60, 8, TASK, seed=1)
    sets = two_sets(data, seed=1)
    of_pair = np.array([[sets[s.episode.number] for s in (p.first, p.second)] for p in pairs])
    assert (of_pair.sum(1) == 1).all()
    assert 15 < of_pair[:, 0].sum() < 45
    assert {s.length for pair in pairs for s in (pair.first, pair.second)} == {8}
    again = paper_queries(data, 60, 8, TASK, seed=1)
    assert [p.first.start for p in again] == [p.first.start for p in pairs]
    with pytest.raises(DataError, match="segments of 40 steps"):
        paper_queries(data, 5, 40, TASK, seed=0)


def test_regret_counts_what_is_still_to_come() -> None:
    episode = make_episode(np.random.default_rng(0), steps=20)
    labeler = RegretLabeler(lambda obs: 10 * obs[:, 1])
    pair = Pair(Segment(episode, 0, 5), Segment(episode, 7, 5), TASK)
    answer = labeler([pair])
    worth = [
        episode.env_reward[start : start + 4].sum()
        + 10 * (episode.obs[start + 4, 1] - episode.obs[start, 1])
        for start in (0, 7)
    ]
    assert answer.extra["first_worth"][0] == pytest.approx(worth[0], rel=1e-5)
    assert answer.value[0] == float(worth[1] > worth[0])
    swapped = labeler([Pair(pair.second, pair.first, TASK)])
    assert answer.value[0] + swapped.value[0] == 1


def test_a_value_function_survives_the_disk_and_labels_a_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((39, 8), (8, 1))]
    value = ValueFunction(weights, [np.ones(8, np.float32), np.zeros(1, np.float32)])
    value.save(tmp_path / "value.npz")
    obs = rng.normal(size=(5, 39)).astype(np.float32)
    expected = np.maximum(obs @ weights[0] + 1, 0) @ weights[1]
    loaded = ValueFunction.load(tmp_path / "value.npz")
    np.testing.assert_allclose(loaded(obs), expected[:, 0], rtol=1e-6)
    with pytest.raises(DataError, match="39 numbers, these have 35"):
        loaded(obs[:, :35])
    make_trajectories().save(tmp_path / "a.npz")
    config = LabelConfig(tmp_path / "a.npz", labeler="regret", segment_length=8)
    with pytest.raises(DataError, match="--value"):
        label(config)
    assert label(replace(config, value=tmp_path / "value.npz"))["labelled"] == 100
    with pytest.raises(CheckpointError, match="agents.iql"):
        ValueFunction.load(tmp_path / "a.npz")


def test_a_minari_data_set_comes_back_as_trajectories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    from vlp_gym.data.minari import read_minari, write_minari
    from vlp_gym.training.collect import collect_task

    data = collect_task("DoorClose", {"expert": 1, "random": 1}, 6, seed=0)
    data.save(tmp_path / "DoorClose.npz")
    (tmp_path / "root").mkdir()
    (name,) = write_minari(tmp_path / "root", [tmp_path / "DoorClose.npz"], "tiny")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    back = read_minari(name)
    assert (back.task_name, back.behaviour) == ("DoorClose", data.behaviour)
    for column in ("seed", "obs", "action", "env_reward", "success"):
        np.testing.assert_array_equal(getattr(back, column), getattr(data, column), err_msg=column)
