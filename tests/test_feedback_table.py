"""The label table, its file, and state files."""

import copy
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import TASK, make_episode
from vlp_gym.errors import CheckpointError, FeedbackError
from vlp_gym.feedback.queries import uniform_queries
from vlp_gym.feedback.state_file import load_state, save_state
from vlp_gym.feedback.table import LabelTable
from vlp_gym.types import Labels, Pair, Status


def pairs_of(n_pairs: int, seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)
    return uniform_queries([make_episode(rng, 7), make_episode(rng, 8)], n_pairs, 5, TASK, rng)


def mixed_labels() -> Labels:
    value = np.array([0.0, 1.0, 0.25, np.nan, np.nan], np.float32)
    status = np.array([0, 0, 0, Status.ABSTAINED, Status.FAILED], np.int8)
    return Labels(value, status, {"first_score": np.arange(5.0), "reason": np.array(list("abcde"))})


def filled(batches: int = 1) -> LabelTable:
    table = LabelTable()
    for batch in range(batches):
        step, how = 100 * batch, {"labeler": "fake", "seconds": 0.5}
        table.append(pairs_of(5, batch), mixed_labels(), session=batch, step=step, **how)
    return table


def assert_equal_tables(first: LabelTable, second: LabelTable) -> None:
    assert first.names == second.names and len(first) == len(second)
    for name in first.names:
        np.testing.assert_array_equal(first.column(name), second.column(name))
        assert first.column(name).dtype == second.column(name).dtype
    for name in ("obs", "action", "label"):
        np.testing.assert_array_equal(
            getattr(first.preferences(), name), getattr(second.preferences(), name)
        )


def test_a_row_says_where_its_label_is_from() -> None:
    table, pair = filled(2), pairs_of(5, 1)[2]
    row = {name: table.column(name)[5 + 2] for name in table.names}
    assert row == {
        "session": 1,
        "step": 100,
        "first_episode": pair.first.episode.number,
        "first_start": pair.first.start,
        "second_episode": pair.second.episode.number,
        "second_start": pair.second.start,
        "length": 5,
        "label": 0.25,
        "status": Status.LABELLED,
        "first_return": pair.first.env_return,
        "second_return": pair.second.env_return,
        "seconds": 0.5,
        "instruction": TASK.instruction,
        "labeler": "fake",
        "first_score": 2.0,
        "reason": "c",
    }


def test_only_labelled_pairs_are_fitted_to() -> None:
    table, pairs = filled(), pairs_of(5)
    preferences = table.preferences()
    assert len(table) == 5 and table.n_labelled == len(preferences) == 3
    assert preferences.label.tolist() == [0.0, 1.0, 0.25]
    for row, pair in enumerate(pairs[:3]):
        np.testing.assert_array_equal(preferences.obs[row], [pair.first.obs, pair.second.obs])
        np.testing.assert_array_equal(
            preferences.action[row], [pair.first.action, pair.second.action]
        )


def test_rows_without_an_extra_column_stay_blank() -> None:
    table = filled()
    plain = Labels.of(np.ones(2))
    table.append(pairs_of(2), plain, session=1, step=9, labeler="oracle", seconds=0.0)
    assert np.isnan(table.column("first_score")[5:]).all()
    assert table.column("reason")[5:].tolist() == ["", ""]


def test_an_answer_of_the_wrong_length_changes_nothing() -> None:
    table = filled()
    with pytest.raises(FeedbackError, match="asked about 4 pairs and answered 5"):
        table.append(pairs_of(4), mixed_labels(), session=1, step=1, labeler="x", seconds=0.0)
    assert len(table) == 5


def test_no_label_is_nothing_to_fit_to() -> None:
    with pytest.raises(ValueError, match="nothing to fit to"):
        LabelTable().preferences()


def test_an_extra_column_may_not_hide_one_of_ours() -> None:
    labels = Labels.of(np.ones(2), obs=np.zeros(2))
    with pytest.raises(FeedbackError, match="name of its own"):
        LabelTable().append(pairs_of(2), labels, session=0, step=0, labeler="x", seconds=0.0)


def test_a_file_gives_the_table_back(tmp_path: Path) -> None:
    table = filled(3)
    table.save(tmp_path / "labels.parquet")
    assert_equal_tables(table, LabelTable.load(tmp_path / "labels.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["labels.parquet"]


def test_an_empty_table_has_a_file_too(tmp_path: Path) -> None:
    LabelTable().save(tmp_path / "labels.parquet")
    assert len(LabelTable.load(tmp_path / "labels.parquet")) == 0


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "labels.parquet", filled()
    table.save(path)

    def full_disk(file: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        filled(2).save(path)
    assert_equal_tables(table, LabelTable.load(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_or_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    with pytest.raises(CheckpointError, match=r"name the labels\.parquet"):
        LabelTable.load(path)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(CheckpointError):
        LabelTable.load(path)


def test_save_load_append_equals_uninterrupted() -> None:
    whole, resumed = filled(2), LabelTable()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for table in (whole, resumed):
        table.append(pairs_of(5, 9), mixed_labels(), session=2, step=5, labeler="fake", seconds=0.1)
    assert_equal_tables(whole, resumed)


def test_a_state_file_gives_the_state_back(tmp_path: Path) -> None:
    state = {
        "rng": np.random.default_rng(0).bit_generator.state,
        "nested": [{"a": np.arange(3)}, None, "text", True],
        "flag": np.bool_(True),
        "table": filled().state_dict(),
    }
    save_state(tmp_path / "state.npz", state)
    got = load_state(tmp_path / "state.npz")
    assert got["rng"] == state["rng"] and got["flag"] is True
    np.testing.assert_array_equal(got["nested"][0]["a"], np.arange(3))
    assert got["nested"][1:] == [None, "text", True]
    table = LabelTable()
    table.load_state_dict(got["table"])
    assert_equal_tables(table, filled())


def test_a_state_file_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    for bad in ({"a": object()}, {1: 2}, {"a": np.array([object()])}):
        with pytest.raises(TypeError):
            save_state(tmp_path / "state.npz", bad)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_halved_state_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    save_state(path, {"a": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CheckpointError, match="older checkpoint"):
        load_state(path)
