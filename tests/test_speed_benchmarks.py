"""The benchmarks of an agent's speed, with feedback and without, at a small size."""

from pathlib import Path

import pytest

from benchmarks import throughput, vectors
from benchmarks.parts import ALIKE
from benchmarks.schema import read_records


@pytest.mark.filterwarnings("ignore::UserWarning")  # bare Meta-World fails some checks of Gymnasium
def test_throughput_measures_all_ways_in_one_process(tmp_path: Path) -> None:
    config = throughput.Config(
        labeler="oracle",
        queries=2,
        session_every=60,
        picture_steps=2,
        repeats=1,
        warm_up=3,
        results=tmp_path,
    )
    throughput.main(config)
    records = read_records("throughput", tmp_path)
    names = [throughput.BARE, throughput.FEEDBACK, throughput.SHARED, throughput.PICTURES]
    assert [record.method for record in records] == names
    assert records[0].metrics["share of bare"] == 1.0
    assert records[-1].metrics["times env.render()"] == 1.0
    assert all(record.metrics["steps/s"] > 0 for record in records)
    parts = {record.method: record.metrics for record in read_records("throughput_parts", tmp_path)}
    assert parts["session: fit"]["s vlp-gym"] > 0
    assert "s bare Meta-World" not in parts["session: fit"]
    for method, speed in zip(names[:3], records, strict=False):
        column = f"s {method}"
        whole = sum(part.get(column, 0.0) for name, part in parts.items() if name != ALIKE)
        assert parts[ALIKE][column] == pytest.approx(whole), "nobody trains in so few steps"
        assert whole == pytest.approx(config.session_every / speed.metrics["steps/s"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_vectors_measure_all_ways_in_one_process(tmp_path: Path) -> None:
    config = vectors.Config(
        labeler="oracle", queries=2, session_every=120, repeats=1, warm_up=20, n_envs=2, results=tmp_path
    )  # fmt: skip
    vectors.main(config)
    records = read_records("vectors", tmp_path)
    names = [throughput.BARE, throughput.FEEDBACK, throughput.SHARED]
    assert [record.method for record in records] == names
    assert records[0].metrics["share of bare"] == 1.0
    parts = {record.method: record.metrics for record in read_records("vectors_parts", tmp_path)}
    for record in records:
        whole = parts[ALIKE][f"s {record.method}"]
        assert whole == pytest.approx(config.session_every / record.metrics["steps/s"])
