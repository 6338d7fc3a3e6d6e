"""What a training batch is made of: which tasks, which clips, and which labels."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

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
from vlp_gym.errors import CheckpointError
from vlp_gym.models.vlp import VLP
from vlp_gym.training.batches import BatchConfig, forget_words, match_batch, preference_batch
from vlp_gym.training.clips import ClipSet, clips_of, moved, together, way_of
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.trainer import load_pool, train


def test_a_task_in_two_folders_is_no_stranger_to_itself(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, (data, data))
    assert [[clips.clips.task_name for clips in task] for task in pool] == [[n] * 2 for n in TRAIN]
    rng = np.random.default_rng(0)
    for _ in range(5):
        # Of three tasks three different ones, in some order: every sentence speaks of another thing.
        batch = match_batch(pool, SENTENCES, settings.batch, rng)
        assert len(batch.clips) == 2 * len(batch.sentences) == 6
        assert preference_batch(pool, SENTENCES, settings.batch, rng).clips.shape[:2] == (3, 6)
        things = {"door", "drawer", "window"}
        named = [next((w for w in things if w in s), None) for s in batch.sentences]
        assert len({n for n in named if n}) == len([n for n in named if n])


def test_replays_of_agents_add_windows_to_the_tasks_that_have_them(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    replays = tmp_path / "replays"
    replays.mkdir()
    settings = config(data, cache, tmp_path / "run", replays=(replays,), steps=2)
    with pytest.raises(CheckpointError, match="no replay of a training task"):
        train(settings)
    of_agent = Trajectories.load(data / "DoorOpen.npz").with_behaviours("correlated")
    dataclasses.replace(of_agent, behaviour=("sac",) * len(of_agent)).save(replays / "DoorOpen.npz")

    pool, _ = load_pool(VLP(settings.model), settings, settings.data, settings.replays)
    assert [[len(folder.clips) for folder in task] for task in pool][1:] == [
        [len(pool[1][0].clips)],
        [len(pool[2][0].clips)],
    ]
    collected, replayed = pool[0]
    assert not replayed.clips.whole.any()
    # The same segments stand in both folders: they are worth the same, and moved by the same experts' way.
    own = np.flatnonzero((collected.clips.behaviour == "correlated") & ~collected.clips.whole)
    assert np.array_equal(replayed.clips.rank_of_all, collected.clips.rank_of_all[own])
    assert replayed.clips.rank[~replayed.clips.whole].max() == 1
    assert np.array_equal(replayed.clips.moved, collected.clips.moved[own])
    assert replayed.clips.moved.any()
    # Levels come from the folder that has some.
    rng = np.random.default_rng(0)
    windows = settings.batch.windows
    for _ in range(8):
        batch = preference_batch(pool[:1], SENTENCES, BatchConfig(1, windows), rng)
        level = batch.label[0, windows:, windows:]
        assert level.tolist() == [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]
    checkpoint = train(settings)
    training = json.loads((checkpoint / "config.json").read_text())["training"]
    assert (training["steps"], training["replays"]) == (2, ["DoorOpen"])
    assert "their segments in 1 of the tasks" in (checkpoint / "README.md").read_text()


def test_a_task_and_its_undoing_are_strangers_only_where_there_are_no_others(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path, batch=BatchConfig(tasks=3, windows=3, match_tasks=4))
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, (data,))
    strangers = pool + [[clips_at(model, settings, name, data)] for name in TEST]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        named = match_batch(strangers, SENTENCES, settings.batch, rng).sentences
        assert len(named) == 4
        batch = preference_batch(strangers, SENTENCES, settings.batch, rng)
        kinds = [{"door", "drawer", "window"} & set(each.split()) for each in batch.sentences]
        kinds = [kind for kind in kinds if len(kind) == 1]  # a sentence may have lost its noun
        assert len({min(kind) for kind in kinds}) == len(kinds)
        seen |= {undoing is None for undoing in batch.undoing}
    # Nothing undoes WindowClose here.
    assert seen == {True, False}


def clips_at(model: VLP, settings: TrainConfig, name: str, data: Path) -> TaskClips:
    trajectories = Trajectories.load(data / f"{name}.npz")
    n_frames = settings.model.n_frames
    return task_clips(
        trajectories, model.encoders, settings.view, settings.grid, n_frames, settings.cache
    )


def test_whoever_moved_the_object_furthest_is_last_under_the_sentence_that_undoes_it(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path)
    model = VLP(settings.model)
    task = clips_at(model, settings, "DoorOpen", data)
    moved_by = {
        level: task.clips.moved[task.clips.whole & (task.clips.level == level)].mean()
        for level in range(3)
    }
    assert moved_by[2] > 0.2 > abs(moved_by[0])
    sentences = {"DoorOpen": SENTENCES["DoorOpen"], "DoorClose": SENTENCES["DoorClose"]}
    one = dataclasses.replace(settings.batch, tasks=1)
    batch = preference_batch([[task]], sentences, one, np.random.default_rng(0))
    # Clips 3, 4 and 5 are random, medium and expert; row i, column j is the preference for j.
    assert batch.undoing[0] is not None
    assert batch.label[0, 3, 5] > 0.9
    assert batch.undone_label[0, 3, 5] < 0.2 and batch.undone_weight[0, 3, 5] == 1
    # Where nothing was moved yet, coming near is as good as ever.
    still = np.abs(task.clips.moved) < 0.05
    assert still[task.clips.whole & (task.clips.level < 2)].any()
    near = dataclasses.replace(
        task, clips=dataclasses.replace(task.clips, moved=0 * task.clips.moved)
    )
    batch = preference_batch([[near]], sentences, one, np.random.default_rng(0))
    assert torch.equal(batch.undone_label, batch.label)
    assert torch.equal(batch.undone_weight, batch.weight)
    assert preference_batch(
        [[task]], {"DoorOpen": sentences["DoorOpen"]}, one, np.random.default_rng(0)
    ).undoing == [None]


def test_what_experts_do_not_move_does_not_move() -> None:
    obs = np.zeros((3, 5, 39), np.float32)
    obs[2, :, 4] = np.linspace(0, 1, 5)  # a random one pushed it
    still = Trajectories(
        "Reach", ("expert", "medium", "random"), np.arange(3), obs, np.zeros((3, 5, 4), np.float32),
        np.zeros((3, 5), np.float32), np.zeros((3, 5), bool), np.zeros((3, 5, 1)), {},
    )  # fmt: skip
    assert not way_of(still).any()
    assert (moved(np.ones((4, 3)), way_of(still)) == 0).all()
    obs[0, :, 4] = np.linspace(0, 2, 5)
    np.testing.assert_allclose(way_of(still), [1.5, 0, 0])  # since its second observation
    np.testing.assert_allclose(moved(np.eye(3), way_of(still)), [2 / 3, 0, 0])


def test_windows_in_success_may_be_ranked_first() -> None:
    n_steps = 60
    reward = np.zeros((3, n_steps), np.float32)
    success = np.zeros((3, n_steps), bool)
    reward[0], reward[1], reward[2] = 9.0, 1.0, np.linspace(0, 1, n_steps)
    success[1] = True  # reached, and hardly paid for
    episodes = Trajectories(
        "DoorOpen", ("noisy",) * 3, np.arange(3), np.zeros((3, n_steps, 39), np.float32),
        np.zeros((3, n_steps, 4), np.float32), reward, success, np.zeros((3, n_steps, 1)), {},
    )  # fmt: skip
    by_return = clips_of(episodes, GRID, n_frames=3)
    by_success = clips_of(episodes, GRID, n_frames=3, rank="success")

    def mean_rank(clips: ClipSet) -> list[float]:
        return [float(clips.rank[clips.episode == episode].mean()) for episode in range(3)]

    assert np.argsort(mean_rank(by_return)).tolist() == [2, 1, 0]
    assert np.argsort(mean_rank(by_success)).tolist() == [2, 0, 1]
    rest = by_success.episode == 2  # returns decide where success does not
    assert (np.diff(by_success.rank[rest]) > 0).all()


def test_windows_are_ranked_by_return_and_levels_are_kept_apart(data: Path) -> None:
    trajectories = Trajectories.load(data / "DoorOpen.npz")
    clips = clips_of(trajectories, GRID, n_frames=3)
    window = ~clips.whole
    assert (np.diff(clips.rank[window][np.argsort(clips.env_return[window])]) >= 0).all()
    assert clips.rank[window].min() == 0 and clips.rank[window].max() == 1
    assert sorted(clips.level[clips.whole]) == [0, 1, 2]
    steps = GRID.steps(60, trajectories.seed)
    assert (np.diff(steps, axis=1) == 8).all() and steps.max() < 60


@pytest.mark.parametrize("rank", ["return", "success"])
def test_an_agent_without_success_is_ranked_among_those_that_have_some(rank: str) -> None:
    def folder(behaviour: str, rewards: list[float], succeeds: list[bool], gone: float) -> ClipSet:
        n, n_steps = len(rewards), 60
        obs = np.zeros((n, n_steps, 39), np.float32)
        obs[:, 10:, 4] = gone
        flat = np.ones((n, n_steps), np.float32)
        episodes = Trajectories(
            "DoorOpen", (behaviour,) * n, np.arange(n), obs, np.zeros((n, n_steps, 4), np.float32),
            flat * np.array(rewards, np.float32)[:, None], (flat * np.array(succeeds)[:, None]) > 0,
            np.zeros((n, n_steps, 1)), {},
        )  # fmt: skip
        return clips_of(episodes, GRID, n_frames=3, rank=rank)

    expert = folder("expert", [5.0], [True], gone=0.2)
    mixed = folder("noisy", [1.0, 4.0], [False, True], gone=0.2)
    agent = folder("sac", [6.0, 2.0], [False, False], gone=0.1)
    # Alone, an agent's best is good, and nothing says which way it moved things.
    assert agent.rank[agent.episode == 0].min() > 0.5 and not agent.moved.any()
    _, others, of_agent = together([expert, mixed, agent], rank)
    assert np.array_equal(of_agent.rank, agent.rank, equal_nan=True)
    best, worst = (of_agent.rank_of_all[of_agent.episode == episode] for episode in (0, 1))
    failed, succeeded = (others.rank_of_all[others.episode == episode] for episode in (0, 1))
    assert failed.max() < worst.min() < succeeded.min()
    assert (best.min() > succeeded.max()) == (rank == "return")
    np.testing.assert_allclose(of_agent.moved[of_agent.frame.min(1) > 1], 0.5, atol=1e-6)


def test_windows_of_two_folders_are_compared(data: Path, cache: Path, tmp_path: Path) -> None:
    settings = config(data, cache, tmp_path)
    one = clips_at(VLP(settings.model), settings, "DoorOpen", data)
    none = dataclasses.replace(one, features=np.zeros_like(one.features))

    def of_the_second(mixed: float) -> list[int]:
        settings, rng = BatchConfig(tasks=1, windows=6, mixed=mixed), np.random.default_rng(0)
        batches = [preference_batch([[one, none]], SENTENCES, settings, rng) for _ in range(40)]
        return [int((batch.clips[0, :6].flatten(1) == 0).all(1).sum()) for batch in batches]

    assert set(of_the_second(0.0)) == {0, 6}
    assert set(of_the_second(0.5)) == {0, 3, 6}
    assert set(of_the_second(1.0)) == {3}


def test_a_share_of_windows_is_one() -> None:
    with pytest.raises(ValueError, match="mixed is a share"):
        BatchConfig(mixed=2.0)


def test_pairs_of_two_folders_are_judged_by_where_they_stand_among_all(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path)
    one = clips_at(VLP(settings.model), settings, "DoorOpen", data)

    def standing(rank: float, rank_of_all: float, features: np.ndarray) -> TaskClips:
        flat = 0 * one.clips.rank
        own = dataclasses.replace(one.clips, rank=flat + rank, rank_of_all=flat + rank_of_all)
        return dataclasses.replace(one, clips=own, features=features)

    # The best of its folder is among the worst of all, and is the one that is not black.
    folders = [
        standing(0.9, 0.1, np.ones_like(one.features)),
        standing(0.1, 0.9, np.zeros_like(one.features)),
    ]
    settings_of_two = BatchConfig(tasks=1, windows=2, mixed=1.0)
    batch = preference_batch([folders], SENTENCES, settings_of_two, np.random.default_rng(0))
    first_is_black = not batch.clips[0, 0].any()
    assert first_is_black == bool(batch.clips[0, 1].any())
    assert (batch.label[0, 0, 1] < 0.001) == first_is_black
    assert (batch.label[0, 0, 1] > 0.999) != first_is_black


def test_a_sentence_forgets_words_but_none_that_turns_it_round() -> None:
    sentence = "do not leave the door open"
    forgotten = [forget_words(sentence, 0.5, np.random.default_rng(seed)) for seed in range(200)]
    assert all("not" in each.split() for each in forgotten)
    for word in set(sentence.split()) - {"not"}:
        share = np.mean([word in each.split() for each in forgotten])
        assert 0.35 < share < 0.65
    assert forget_words("open", 1.0, np.random.default_rng(0)) == "open"
