"""Training a preference model: labels, batches, a resumed run, and what it learns."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from tests.tiny_vlp import SIZE_PX, tiny_config
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, InstructionError
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import SPLITS, Split
from vlp_gym.training.batches import BatchConfig, TaskPool, match_batch, preference_batch
from vlp_gym.training.clips import clips_of, moved
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.evaluation import EvaluateConfig, _turned, evaluate
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid, cached_frames, draw_data_set
from vlp_gym.training.objective import LossConfig, Objective
from vlp_gym.training.run import TrainingRun
from vlp_gym.training.trainer import load_pool, train, training_sentences
from vlp_gym.types import View

TRAIN, TEST = ("DoorOpen", "DrawerOpen", "WindowClose"), ("DoorClose", "DrawerClose")
EPISODES = {"expert": 1, "medium": 1, "random": 1, "correlated": 2, "mixture": 2}
GRID = FrameGrid(stride=8)
SENTENCES = {name: instructions(name) for name in (*TRAIN, *TEST)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    settings = CollectConfig(
        out=folder, tasks=TRAIN + TEST, episodes=EPISODES, n_steps=60, workers=1
    )
    return collect(settings)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPLITS, "tiny", Split(TRAIN, TEST))


def config(data: Path, cache: Path, out: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        data=(data,), out=out, cache=cache, split="tiny", model=tiny_config(),
        view=View("corner4", SIZE_PX), grid=GRID, steps=6,
        batch=BatchConfig(tasks=3, windows=3, match_tasks=3), loss=LossConfig(strangers=1),
        warmup_steps=1, device="cpu", workers=1, checkpoint_every=2,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_killed_run_ends_as_one_that_was_never_killed(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(data, cache, tmp_path / "whole"))

    class KilledError(Exception):
        pass

    advance = TrainingRun.advance

    def killed(run: TrainingRun, pool: TaskPool) -> dict[str, float]:
        if run.step == 5:
            raise KilledError
        return advance(run, pool)

    stopped = config(data, cache, tmp_path / "stopped")
    monkeypatch.setattr(TrainingRun, "advance", killed)
    with pytest.raises(KilledError):
        train(stopped)
    monkeypatch.setattr(TrainingRun, "advance", advance)
    resumed = train(stopped)
    first, second = (load_file(each / "model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_the_loss(data: Path, cache: Path, tmp_path: Path) -> None:
    loss = LossConfig(strangers=1, ivp=2.0)
    train(config(data, cache, tmp_path / "run", steps=80, lr=5e-3, loss=loss))
    rows = (tmp_path / "run" / "curve.csv").read_text().split()
    columns = rows[0].split(",")
    curve = np.array([[float(v) for v in row.split(",")] for row in rows[1:]])
    for name in ("itp_loss", "ivp_loss", "state_loss", "match_loss"):
        column = curve[:, columns.index(name)]
        assert column[-10:].mean() < column[:10].mean(), name


@pytest.mark.parametrize("match_width", [8, 0])
def test_with_a_match_ivp_leaves_the_progress_alone(
    data: Path, cache: Path, tmp_path: Path, match_width: int
) -> None:
    settings = config(data, cache, tmp_path, model=tiny_config(match_width=match_width))
    torch.manual_seed(0)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, settings.data)
    batch = preference_batch(pool, SENTENCES, settings.batch, np.random.default_rng(0))

    def gradients(ivp: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        model.zero_grad()
        weights = LossConfig(ilp=0.0, ivp=ivp, strangers=1, undo=0.0, state=0.0)
        loss, _ = Objective(model, weights).eval()(batch, None)
        loss.backward()  # type: ignore[no-untyped-call]
        head = model.score_head[1].weight.grad
        return head.clone(), None if model.match is None else model.match.see.weight.grad.clone()

    (without, match_without), (with_ivp, match_with) = gradients(0.0), gradients(5.0)
    assert torch.allclose(without, with_ivp) == bool(match_width)
    if match_width:
        assert not torch.allclose(match_without, match_with)


def test_accumulated_batches_make_one_step_of_their_mean_gradient(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path, accumulate=2)
    torch.manual_seed(0)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, settings.data)

    def new_run(accumulate: int) -> TrainingRun:
        settings_now = dataclasses.replace(settings, accumulate=accumulate)
        torch.manual_seed(1)
        return TrainingRun(settings_now, model, Accelerator(cpu=True), SENTENCES, "")

    def gradients(n_batches: int, seed: int) -> torch.Tensor:
        run = new_run(accumulate=1)
        run.rng = np.random.default_rng(seed)
        model.zero_grad()
        model.eval()  # batch statistics stay as they are
        for _ in range(n_batches):
            run._backward(pool)
        head: torch.Tensor = model.score_head[1].weight.grad
        return head.clone() / n_batches

    run = new_run(accumulate=2)
    run.rng = np.random.default_rng(7)
    model.zero_grad()
    model.eval()
    run._backward(pool)
    run._backward(pool)
    torch.testing.assert_close(model.score_head[1].weight.grad, gradients(2, seed=7))
    assert not torch.allclose(gradients(1, seed=7), gradients(2, seed=7))


def test_half_precision_trains_and_the_curves_are_for_tensorboard_too(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    half, full = (
        config(data, cache, tmp_path / p, precision=p, steps=2) for p in ("bfloat16", "float32")
    )
    rows = [
        np.genfromtxt(train(c).parent / "curve.csv", delimiter=",", names=True)
        for c in (half, full)
    ]
    np.testing.assert_allclose(rows[0]["loss"], rows[1]["loss"], rtol=0.05)
    assert (rows[0]["loss"] != rows[1]["loss"]).all()
    assert list((tmp_path / "float32" / "tensorboard").iterdir())


def test_frames_drawn_in_several_processes_are_the_same(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    view, folder = View("corner4", SIZE_PX), tmp_path / "frames"
    paths = [data / "DoorOpen.npz", data / "DrawerOpen.npz"]
    draw_data_set(paths, view, GRID, folder, workers=2)
    assert len(list(folder.iterdir())) == 2
    trajectories = Trajectories.load(data / "DoorOpen.npz")
    drawn = cached_frames(trajectories, view, GRID, folder)
    np.testing.assert_array_equal(drawn, cached_frames(trajectories, view, GRID, cache / "frames"))


def test_a_run_folder_of_other_settings_is_refused(data: Path, cache: Path, tmp_path: Path) -> None:
    train(config(data, cache, tmp_path / "run"))
    with pytest.raises(CheckpointError, match="other settings"):
        train(config(data, cache, tmp_path / "run", lr=1.0))


def test_start_weights_of_another_encoder_are_refused(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="encoders"):
        train(config(data, cache, tmp_path / "run", start=tmp_path / "none.safetensors"))


def test_evaluation_reads_what_training_wrote(data: Path, cache: Path, tmp_path: Path) -> None:
    checkpoint = train(config(data, cache, tmp_path / "run"))
    out = tmp_path / "r.json"
    result = evaluate(
        EvaluateConfig(checkpoint, data, cache, "tiny", n_pairs=60, device="cpu", out=out)
    )
    assert [task.task_name for task in result.tasks] == list(TEST)
    signed = ("rank_correlation", "paper_phi")
    assert all(0 <= v <= 1 for k, v in result.mean.items() if k not in (*signed, "ilp_delta"))
    assert all(-1 <= result.mean[name] <= 1 for name in signed)
    written = json.loads(out.read_text())
    assert written["tasks"]["DoorClose"]["itp"] == result.tasks[0].itp
    # IVP and the table of which task beats which say the same.
    assert written["beats"]["DoorClose"]["DrawerClose"] == pytest.approx(1 - result.tasks[0].ivp)
    assert written["beats"]["DoorClose"]["DoorClose"] == 0.5
    # Every pair counts both ways round under every sentence.
    assert sum(written["calibration"]["DoorClose"]["count"]) > 60
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


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


def test_a_split_whose_test_tasks_leak_is_refused() -> None:
    with pytest.raises(ValueError, match="leak"):
        Split(("DoorOpen", "Push"), ("Push",))


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
        assert len(batch.features) == 2 * len(batch.sentences) == 6
        assert preference_batch(pool, SENTENCES, settings.batch, rng).features.shape[:2] == (3, 6)
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
    assert not replayed.clips.moved.any()
    # Windows of either folder, and levels of the one that has some.
    rng = np.random.default_rng(0)
    windows = settings.batch.windows
    for _ in range(8):
        batch = preference_batch(pool[:1], SENTENCES, BatchConfig(1, windows), rng)
        level = batch.label[0, windows:, windows:]
        assert level.tolist() == [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]
    seen = {float(value) for value in replayed.clips.rank} - set(collected.clips.rank)
    assert seen, "ranks are those of one folder"
    assert json.loads((train(settings) / "config.json").read_text())["training"]["steps"] == 2


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
    assert (moved(still) == 0).all()
    obs[0, :, 4] = np.linspace(0, 2, 5)
    np.testing.assert_allclose(moved(still)[:, -1], [1, 0, 0.5])


def test_the_best_checkpoint_is_kept_beside_the_last(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.7])

    def figures(*_: object) -> dict[str, float]:
        return {"validation": next(scores)}

    monkeypatch.setattr("vlp_gym.training.run.validation_figures", figures)
    last = train(config(data, cache, tmp_path / "run", validation=data))
    rows = (tmp_path / "run" / "validation.csv").read_text().split()
    assert rows == ["step,validation", "2,0.5", "4,0.9", "6,0.7"]
    training = [
        json.loads((folder / "config.json").read_text())["training"]["steps"]
        for folder in (last.parent / "best", last)
    ]
    assert training == [4, 6]


def test_validation_reads_unseen_sentences(data: Path, cache: Path, tmp_path: Path) -> None:
    train(config(data, cache, tmp_path / "run", validation=data))
    rows = np.genfromtxt(tmp_path / "run" / "validation.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == [2, 4, 6]
    assert ((rows["itp"] >= 0) & (rows["itp"] <= 1)).all()
    np.testing.assert_allclose(rows["validation"], (rows["itp"] + rows["windows"]) / 2, rtol=1e-4)


def test_sentences_of_ones_own_are_trained_with(data: Path, cache: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.json"
    more.write_text(json.dumps({"DoorOpen": ["pry the door open"], "Hammer": ["hit it hard"]}))
    sentences = training_sentences(config(data, cache, tmp_path / "run", instructions=more))
    assert sentences["DoorOpen"] == (*instructions("DoorOpen"), "pry the door open")
    assert sentences.keys() == set(TRAIN)  # what is no training task stays out
    more.write_text(json.dumps({"DoorOpen": [instructions("DoorClose", "unseen")[0]]}))
    with pytest.raises(InstructionError, match="kept"):
        train(config(data, cache, tmp_path / "run", instructions=more))


def test_fewer_of_our_sentences_are_the_default_one_and_others_of_all_the_table(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    def trained_with(number: int | None) -> tuple[str, ...]:
        settings = config(data, cache, tmp_path / "run", own_sentences=number)
        return training_sentences(settings)[TRAIN[0]]

    everything = instructions(TRAIN[0])
    assert trained_with(None) == everything
    assert trained_with(1) == everything[:1]
    ten = trained_with(10)
    assert len(ten) == len(set(ten)) == 10
    assert everything.index(ten[-1]) > len(everything) // 2
    with pytest.raises(ValueError, match="own_sentences must be 1 or more, got 0"):
        trained_with(0)


def test_two_processes_share_a_training(data: Path, cache: Path, tmp_path: Path) -> None:
    settings = config(data, cache, tmp_path / "run", steps=2)
    train(dataclasses.replace(settings, out=tmp_path / "alone"))
    script = tmp_path / "shared.py"
    script.write_text(SHARED_TRAINING)
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(settings))
    # What `accelerate launch` does on a machine with two GPUs.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launch += [str(script), str(tmp_path / "config.pickle")]
    finished = subprocess.run(launch, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    shared = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    alone = load_file(tmp_path / "alone" / "checkpoint" / "model.safetensors")
    assert shared.keys() == alone.keys()
    # Twice as many clips a step, of the other half drawn by the second process.
    assert any(not torch.equal(shared[name], alone[name]) for name in shared)


SHARED_TRAINING = """
import pickle, sys
from pathlib import Path
from vlp_gym.tasks.splits import SPLITS, Split
from tests.test_training import TEST, TRAIN
from vlp_gym.training.trainer import train
if __name__ == "__main__":
    SPLITS["tiny"] = Split(TRAIN, TEST)
    train(pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def test_windows_are_ranked_by_return_and_levels_are_kept_apart(data: Path) -> None:
    trajectories = Trajectories.load(data / "DoorOpen.npz")
    clips = clips_of(trajectories, GRID, n_frames=3)
    window = ~clips.whole
    assert (np.diff(clips.rank[window][np.argsort(clips.env_return[window])]) >= 0).all()
    assert clips.rank[window].min() == 0 and clips.rank[window].max() == 1
    assert sorted(clips.level[clips.whole]) == [0, 1, 2]
    steps = GRID.steps(60, trajectories.seed)
    assert (np.diff(steps, axis=1) == 8).all() and steps.max() < 60


def test_frames_are_drawn_once(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trajectories = Trajectories.load(data / "DoorOpen.npz")
    view = View("corner4", SIZE_PX)
    drawn = np.array(cached_frames(trajectories, view, GRID, cache / "frames"))
    monkeypatch.setattr("vlp_gym.training.frames._draw", lambda *_: pytest.fail("drawn again"))
    np.testing.assert_array_equal(cached_frames(trajectories, view, GRID, cache / "frames"), drawn)
