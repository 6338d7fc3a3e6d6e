"""The speed of a vision-language reward is measured as it says."""

from pathlib import Path

import pytest

from benchmarks import vlm_speed
from benchmarks.schema import read_records
from tests.official import register_tiny_clips


@pytest.mark.filterwarnings("ignore::UserWarning")  # bare Meta-World fails some checks of Gymnasium
def test_four_ways_in_one_process(tmp_path: Path) -> None:
    register_tiny_clips(tmp_path)
    config = vlm_speed.Config(
        networks=("tiny-clip-vit",), rollout=6, slow_steps=2, repeats=1, results=tmp_path
    )
    vlm_speed.main(config)
    records = {each.method: each for each in read_records("vlm_speed", tmp_path)}
    ways = [vlm_speed.EVERY_STEP, vlm_speed.AT_ONCE, vlm_speed.NETWORK, vlm_speed.SCORER]
    assert list(records) == ways
    assert records[vlm_speed.EVERY_STEP].metrics["times"] == 1.0
    assert all(each.metrics["frames/s"] > 0 for each in records.values())
