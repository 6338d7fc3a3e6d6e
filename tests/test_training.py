"""Training a preference model: labels, batches, a resumed run, and what it learns."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_vlp import SIZE_PX, tiny_config
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.tasks.splits import SPLITS, Split
from vlp_gym.training import trainer
from vlp_gym.training.batches import BatchConfig, TaskPool, match_batch, preference_batch
from vlp_gym.training.clips import clips_of
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.evaluation import EvaluateConfig, _turned, evaluate
from vlp_gym.training.frames import FrameGrid, cached_frames, draw_data_set
from vlp_gym.training.trainer import TrainConfig, train
from vlp_gym.types import View

TRAIN, TEST = ("DoorOpen", "DrawerOpen", "WindowClose"), ("DoorClose", "DrawerClose")
EPISODES = {"expert": 1, "medium": 1, "random": 1, "correlated": 2, "mixture": 2}
GRID = FrameGrid(stride=8)


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
        batch=BatchConfig(tasks=3, windows=3, match_tasks=3), strangers_per_task=1,
        warmup_steps=1, device="cpu", workers=1, checkpoint_every=2,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_killed_run_ends_as_one_that_was_never_killed(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(data, cache, tmp_path / "whole"))

    class KilledError(Exception):
        pass

    advance = trainer._Run.advance

    def killed(run: trainer._Run, pool: TaskPool) -> dict[str, float]:
        if run.step == 5:
            raise KilledError
        return advance(run, pool)

    stopped = config(data, cache, tmp_path / "stopped")
    monkeypatch.setattr(trainer._Run, "advance", killed)
    with pytest.raises(KilledError):
        train(stopped)
    monkeypatch.setattr(trainer._Run, "advance", advance)
    resumed = train(stopped)
    first, second = (load_file(each / "model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_the_loss(data: Path, cache: Path, tmp_path: Path) -> None:
    train(config(data, cache, tmp_path / "run", steps=150, lr=3e-3, ivp_weight=2.0))
    rows = (tmp_path / "run" / "curve.csv").read_text().split()
    columns = rows[0].split(",")
    loss = np.array([[float(v) for v in row.split(",")] for row in rows[1:]])
    for name in ("itp_loss", "ivp_loss", "state_loss", "match_loss"):
        column = loss[:, columns.index(name)]
        assert column[-10:].mean() < column[:10].mean(), name


@pytest.mark.parametrize("match_width", [8, 0])
def test_with_a_match_ivp_leaves_the_progress_alone(
    data: Path, cache: Path, tmp_path: Path, match_width: int
) -> None:
    settings = config(
        data, cache, tmp_path, model=tiny_config(match_width=match_width),
        ilp_weight=0.0, state_weight=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = trainer.VLP(settings.model)
    probe = trainer.StateProbe(settings.model.width, settings.model.n_frames)
    pool, _ = trainer._load_pool(model, settings)
    batch = preference_batch(pool, settings.batch, np.random.default_rng(0))

    def gradients(ivp_weight: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        model.zero_grad()
        weighted = dataclasses.replace(settings, ivp_weight=ivp_weight)
        loss, _ = trainer.loss_of(model.eval(), probe, batch, None, weighted)
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
    model = trainer.VLP(settings.model)
    pool, _ = trainer._load_pool(model, settings)

    def gradients(n_batches: int, seed: int) -> torch.Tensor:
        run = trainer._Run(dataclasses.replace(settings, accumulate=1), model, torch.device("cpu"))
        run.rng = np.random.default_rng(seed)
        model.zero_grad()
        model.eval()  # batch statistics stay as they are
        for _ in range(n_batches):
            run._backward(pool)
        head: torch.Tensor = model.score_head[1].weight.grad
        return head.clone() / n_batches

    run = trainer._Run(settings, model, torch.device("cpu"))
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
    draw_data_set(data, ("DoorOpen", "DrawerOpen"), view, GRID, folder, workers=2)
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
    model = trainer.VLP(settings.model)
    pool, _ = trainer._load_pool(model, dataclasses.replace(settings, data=(data, data)))
    assert [[clips.clips.task_name for clips in task] for task in pool] == [[n] * 2 for n in TRAIN]
    rng = np.random.default_rng(0)
    for _ in range(5):
        # Of three tasks three different ones, in some order: every sentence speaks of another thing.
        batch = match_batch(pool, settings.batch, rng)
        assert len(batch.features) == 2 * len(batch.sentences) == 6
        assert preference_batch(pool, settings.batch, rng).features.shape[:2] == (3, 6)
        things = {"door", "drawer", "window"}
        named = [next((w for w in things if w in s), None) for s in batch.sentences]
        assert len({n for n in named if n}) == len([n for n in named if n])


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
