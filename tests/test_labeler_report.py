"""What is said of a labeler before any learning."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_training import TEST, tiny_cache, tiny_data, tiny_split  # noqa: F401
from vlp_gym.errors import SettingError, UnknownNameError
from vlp_gym.labelers.score import labels_of
from vlp_gym.training import labeler_report
from vlp_gym.training.evaluation import EvaluateConfig, evaluate_command
from vlp_gym.training.labeler_report import (
    LabelerReport,
    ReportConfig,
    agreement_of,
    pair_quality,
    report,
)
from vlp_gym.types import Labels, Pair


def reported(data: Path, labeler: str, **changes: object) -> LabelerReport:
    config = ReportConfig(
        labeler,
        data=data,
        split="tiny",
        n_pairs=30,
        n_sentence_pairs=8,
        segment_length=20,
        device="cpu",
    )
    return report(replace(config, **changes))  # type: ignore[arg-type]


def test_quality_by_hand() -> None:
    label = np.array([1.0, 0.9, 0.2, 0.0, 0.5, np.nan])
    gap = np.array([1.0, -1.0, -2.0, -1.0, 1.0, 1.0])
    quality = pair_quality(label, gap)
    assert (quality.accuracy, quality.n_labels) == (0.75, 4)
    assert (quality.constant, quality.balance) == (0.75, 0.5)
    assert quality.balanced == pytest.approx((1 + 2 / 3) / 2)
    assert quality.p_below_chance == pytest.approx(15 / 16)


def test_nothing_is_said_of_nothing() -> None:
    assert pair_quality(np.array([0.5, np.nan]), np.ones(2)).accuracy is None
    assert pair_quality(np.array([1.0]), np.zeros(1)).n_labels == 0


def test_the_oracle_is_right_on_every_pair(data: Path) -> None:
    found = reported(data, "oracle")
    assert [task.task_name for task in found.tasks] == list(TEST)
    assert found.mean("accuracy") == found.mean("accuracy", "paper") == 1.0
    assert np.nanmin(found.sentences) == 1.0  # it reads no sentence
    assert not [each for each in found.warnings if "anti-correlated" in each]


class Contrary:
    """The opposite of the oracle."""

    name = "oracle"

    def __call__(self, pairs: list[Pair]) -> Labels:
        returns = np.array([[each.env_return for each in (p.first, p.second)] for p in pairs])
        return labels_of(-returns[:, 0], -returns[:, 1], soft=False)


def test_a_labeler_that_says_the_opposite_is_called_so(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeler_report, "OracleLabeler", Contrary)
    found = reported(data, "oracle")
    assert found.mean("accuracy") == 0.0
    (warning,) = {
        each.partition(":")[0] for each in found.warnings if TEST[0] in each and "anti" in each
    }
    assert warning == f"oracle is anti-correlated on {TEST[0]}"
    assert found.tasks[0].rank_correlation == pytest.approx(-1.0)
    truth = replace(found, tasks=reported_truth(data))
    np.testing.assert_array_equal(agreement_of([found, truth]), [[1.0, 0.0], [0.0, 1.0]])


def reported_truth(data: Path) -> tuple[labeler_report.LabeledTask, ...]:
    with pytest.MonkeyPatch.context() as patch:
        from vlp_gym.labelers.oracle import OracleLabeler

        patch.setattr(labeler_report, "OracleLabeler", OracleLabeler)
        return reported(data, "oracle").tasks


def test_a_constant_answer_is_called_one_sided(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        name = "oracle"

        def __call__(self, pairs: list[Pair]) -> Labels:
            return Labels.of(np.ones(len(pairs)))

    monkeypatch.setattr(labeler_report, "OracleLabeler", Constant)
    found = reported(data, "oracle")
    assert any("one-sided" in each for each in found.warnings)
    assert found.tasks[0].uniform.phi == 0.0


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_the_command_reports_on_a_scorer_with_pictures(data: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(
        checkpoint=Path("bundled"),
        data=data,
        split="tiny",
        n_pairs=12,
        device="cpu",
        out=tmp_path / "clip.json",
        labeler="vlmrm",
        settings=("alpha=0.5", "n_frames=2"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportConfig, "segment_length", 20)
        found = evaluate_command(config)
    assert isinstance(found, LabelerReport)
    assert found.labeler == "vlmrm:stand-in:vlp-compact"
    assert found.tasks[0].seconds_per_clip > 0 and found.tasks[0].seconds_drawing is not None
    written = json.loads((tmp_path / "clip.json").read_text())
    assert set(written["tasks"]) == set(TEST) and "NaN" not in (tmp_path / "clip.json").read_text()
    assert (tmp_path / "clip.png").stat().st_size > 10_000


def test_reports_of_other_pairs_are_not_compared(data: Path) -> None:
    first, second = reported(data, "oracle"), reported(data, "oracle", seed=1)
    with pytest.raises(ValueError, match="different pairs"):
        agreement_of([first, second])


def test_bad_names_and_settings_are_refused(data: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'clip'"):
        reported(data, "cilp")
    with pytest.raises(SettingError, match="NAME=VALUE"):
        reported(data, "clip", settings=("alpha",))


def test_labelers_are_compared_by_one_command(data: Path, tmp_path: Path) -> None:
    from benchmarks import labelers
    from benchmarks.schema import read_records

    config = labelers.Config(
        ("oracle", "clip checkpoint=bundled n_frames=2"),
        data,
        "tiny",
        n_pairs=8,
        n_sentence_pairs=4,
        segment_length=20,
        device="cpu",
        results=tmp_path,
    )
    labelers.compare(config)
    records = read_records("labelers", tmp_path)
    assert [record.method for record in records] == ["oracle"] * 2 + [
        "clip:stand-in:vlp-compact"
    ] * 2
    assert records[0].metrics["labels"] == 1.0 and not any(record.paper for record in records)
    assert (tmp_path / "labelers.png").stat().st_size > 10_000


def test_the_papers_numbers_stand_beside_the_papers_models_alone() -> None:
    from benchmarks.labelers import CORRELATION, LABEL_ACCURACY, Config, paper_of

    class Of:
        def __init__(self, labeler: str) -> None:
            self.labeler = labeler

    config, real = Config(), Of("vlmrm:0123")
    assert paper_of("DoorClose", "vlmrm alpha=1.0", real, config) == {  # type: ignore[arg-type]
        "k-means labels": 0.10,
        "rank correlation": -0.492,
    }
    stand_in = Of("clip:stand-in:vlp-compact")
    assert paper_of("DoorClose", "clip checkpoint=bundled", stand_in, config) == {}  # type: ignore[arg-type]
    assert np.mean(LABEL_ACCURACY["r3m"]) == 85.0 and np.mean(LABEL_ACCURACY["vlmrm:1.0"]) == 38.0
    assert np.mean(CORRELATION["vlp"]) == pytest.approx(0.718)


def test_every_recorded_step_is_scored(data: Path, tmp_path: Path) -> None:
    from vlp_gym.data.trajectories import Trajectories
    from vlp_gym.training.scored_steps import ScoreConfig, score

    path = data / f"{TEST[0]}.npz"
    found = score(
        ScoreConfig(path, checkpoint=Path("bundled"), device="cpu", out=tmp_path / "s.npz")
    )
    recorded = Trajectories.load(path)
    with np.load(tmp_path / "s.npz") as written:
        assert written["score"].shape == recorded.env_reward.shape
        assert str(written["fingerprint"]) == recorded.fingerprint()
        assert str(written["scorer"]) == found["scorer"] == "clip:stand-in:vlp-compact"
        assert np.ptp(written["score"]) > 0
    with pytest.raises(SettingError, match="one score and no step"):
        score(ScoreConfig(path, scorer="vlp", device="cpu", out=tmp_path / "v.npz"))
