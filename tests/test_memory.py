"""Freed memory is handed back; what the memory benchmark measures is there, and does not count the replay buffer."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import memory
from benchmarks.schema import read_records
from vlp_gym.memory import hand_back_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_freed_in_small_pieces_is_handed_back() -> None:
    if not hand_back_freed_memory():
        pytest.skip("this C library keeps freed memory")
    before = memory.resident_bytes()
    pieces = [np.ones(10_000) for _ in range(1_000)]
    kept = pieces[::100]  # freed memory between what is kept stays with the process
    del pieces
    assert memory.resident_bytes() - before > 40e6
    hand_back_freed_memory()
    assert memory.resident_bytes() - before < 20e6
    assert all(piece.sum() == 10_000 for piece in kept)


def test_memory_is_told_along_the_run(tmp_path: Path) -> None:
    config = memory.Config(
        labeler="oracle",
        steps=400,
        parts=2,
        queries=5,
        session_every=100,
        max_episode_steps=50,
        results=tmp_path,
    )
    memory.main(config)
    found = {each.method: each.metrics["MB"] for each in read_records("memory", tmp_path)}
    assert list(found) == ["after 200 steps", "after 400 steps"]
    assert all(abs(megabytes) < 1_000 for megabytes in found.values())


def test_rows_that_were_not_written_are_in_no_memory() -> None:
    config = memory.Config(steps=1_000, max_episode_steps=100)
    agent = memory.make_agent(gym.make("Pendulum-v1"), config)
    assert memory.bytes_of_replay(agent) == 0
    agent.learn(100)
    # Two observations of 3 and an action of 1, float32, with reward, end and time-out.
    assert memory.bytes_of_replay(agent) == 100 * (2 * 3 + 1 + 3) * 4
