"""Tasks that undo others: their scenes, their reward, their scripts, and training on them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    EPISODES,
    TRAIN,
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from vlp_gym.errors import CheckpointError
from vlp_gym.models.vlp import VLP
from vlp_gym.scenes.metaworld import make_sawyer, seed_sawyer
from vlp_gym.tasks.instructions import LANGUAGES, instructions
from vlp_gym.tasks.metaworld import TASKS, UNDOING, find_task
from vlp_gym.tasks.splits import SPLITS
from vlp_gym.training.collect import CollectConfig, collect, collect_task
from vlp_gym.training.trainer import load_pool, train, training_sentences
from vlp_gym.training.undoing import DONE, PUSHES, UndoingSawyer


@pytest.mark.parametrize("name", UNDOING)
def test_the_script_undoes_what_the_expert_did_and_chance_does_not(name: str) -> None:
    data = collect_task(name, {"expert": 3, "random": 1}, 150, seed=11)
    expert, random = data.of_behaviour("expert"), data.of_behaviour("random")
    assert data.success[expert].any(1).mean() > 0.5
    assert not data.success[random].any()
    assert data.env_reward[expert].mean() > 1.3 * data.env_reward[random].mean()
    assert data.env_reward.min() >= 0 and data.env_reward.max() <= 10


def test_an_episode_begins_with_the_arm_at_rest_and_the_door_open() -> None:
    env, plain = UndoingSawyer("UndoDoorOpen"), make_sawyer("DoorOpen")
    for each in (env, plain):
        seed_sawyer(each, 5)
    opened, _ = env.reset()
    closed, _ = plain.reset()
    np.testing.assert_allclose(opened[:3], closed[:3], atol=0.01)  # the hand
    assert np.linalg.norm(opened[4:7] - closed[4:7]) > 0.3  # the handle of the door
    np.testing.assert_allclose(env.origin, closed[4:7], atol=0.01)
    # Nothing is undone yet, and the reward says so.
    _, reward, *_, info = env.step(np.zeros(4, np.float32))
    assert reward < 3 and info["success"] == 0


def test_whatever_lies_back_within_a_share_of_the_way_is_undone() -> None:
    env = UndoingSawyer("UndoDrawerOpen")
    seed_sawyer(env, 3)
    opened, _ = env.reset()
    sawyer = env.unwrapped
    drawer = env._objects
    way = sawyer.data.qpos[drawer].copy()  # the drawer slides from 0
    for left in (2 * DONE, 0.5 * DONE):
        qpos = sawyer.data.qpos.copy()
        qpos[drawer] = left * way
        sawyer.set_state(qpos, np.zeros_like(sawyer.data.qvel))
        obs, reward, *_, info = env.step(np.zeros(4, np.float32))
        assert info["success"] == (left < DONE)
        assert (reward == 10.0) == (left < DONE)
        gone = np.linalg.norm(obs[4:7] - env.origin) / np.linalg.norm(opened[4:7] - env.origin)
        assert gone == pytest.approx(left, abs=0.05)


def test_one_seed_gives_one_episode_of_undoing() -> None:
    first, second = (collect_task("UndoHandlePull", {"mixture": 1}, 30, seed=3) for _ in range(2))
    other = collect_task("UndoHandlePull", {"mixture": 1}, 30, seed=4)
    np.testing.assert_array_equal(first.snapshots, second.snapshots)
    assert first.fingerprint() != other.fingerprint()


def test_undoing_is_said_as_the_counterpart_is_in_every_set_of_sentences() -> None:
    for task in UNDOING.values():
        assert task.counterpart is not None
        done = TASKS[task.counterpart]
        assert done.env_name == task.env_name and task.said_like == done.counterpart
        assert task.instruction == find_task(task.said_like).instruction
        for language in LANGUAGES:
            assert instructions(task.name, language) == instructions(task.said_like, language)
    assert {f"Undo{name}" for name in PUSHES} <= set(UNDOING)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_scene_of_a_training_task_is_undone(split: str) -> None:
    undone = {UNDOING[name].counterpart for name in SPLITS[split].undoing}
    assert undone and undone <= set(SPLITS[split].train)


def test_the_papers_data_set_is_left_as_it_is(tmp_path: Path) -> None:
    for kind, n_tasks in (("mtvlp", 50), ("graded", 50 + len(UNDOING))):
        out = collect(
            CollectConfig(kind=kind, out=tmp_path / kind, episodes={"random": 1}, n_steps=1)  # type: ignore[arg-type]
        )
        assert len(list(out.glob("*.npz"))) == n_tasks


def test_training_reads_the_tasks_that_undo_unless_it_is_told_not_to(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path / "run", undoing=True, steps=2)
    undoing = SPLITS["tiny"].undoing
    assert undoing == ("UndoDoorOpen", "UndoDrawerOpen", "UndoWindowClose")
    with pytest.raises(CheckpointError, match="UndoDoorOpen.npz"):
        train(settings)
    collect(CollectConfig(out=data, tasks=undoing, episodes=EPISODES, n_steps=60, workers=1))
    pool, _ = load_pool(VLP(settings.model), settings, settings.data)
    assert [folders[0].clips.task_name for folders in pool] == [*TRAIN, *undoing]
    assert training_sentences(settings)["UndoDoorOpen"] == instructions("DoorClose")
    about = json.loads((train(settings) / "config.json").read_text())["training"]
    assert about["train_tasks"] == list(TRAIN) and about["undoing"] == list(undoing)
    without = dataclasses.replace(settings, undoing=False, out=tmp_path / "without")
    about = json.loads((train(without) / "config.json").read_text())["training"]
    assert about["undoing"] == []
