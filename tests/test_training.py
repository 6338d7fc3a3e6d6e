"""Training a preference model: labels, batches, a resumed run, and what it learns."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

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
from tests.tiny_vlp import SIZE_PX, tiny_config, tiny_model
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, DataError, InstructionError, SettingError
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import Split
from vlp_gym.training.batches import BatchConfig, TaskPool
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.config import Tower
from vlp_gym.training.frames import cached_frames, draw_data_set
from vlp_gym.training.objective import LossConfig
from vlp_gym.training.run import TrainingRun, freeze, update_average
from vlp_gym.training.trainer import load_pool, train, training_sentences
from vlp_gym.types import View


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


@pytest.mark.parametrize("tune", [(), ("text",), ("vision",), ("vision", "text")])
def test_a_tower_learns_only_if_it_is_tuned(
    tune: tuple[Tower, ...], data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path, tune=tune, steps=2)
    torch.manual_seed(settings.seed)
    before = VLP(settings.model).encoders.state_dict()
    after = load_file(train(settings) / "model.safetensors")
    changed = {
        name.split(".")[1]
        for name, old in before.items()
        if old.is_floating_point()
        # A checkpoint holds the table of words in half precision.
        and not torch.equal(after[f"encoders.{name}"], old.to(after[f"encoders.{name}"].dtype))
    }
    assert changed & {"visual"} == ({"visual"} if "vision" in tune else set())
    text = {"transformer", "ln_final", "positional_embedding"}
    assert changed & text == (text if "text" in tune else set())
    assert "token_embedding" not in changed


def test_the_average_is_that_of_torch_and_leaves_frozen_weights_alone() -> None:
    model = tiny_model()
    freeze(model, ("text",))
    ours, torchs = (torch.optim.swa_utils.AveragedModel(model) for _ in range(2))
    for _ in range(3):
        with torch.no_grad():
            for weights in model.parameters():
                if weights.requires_grad:
                    weights.add_(torch.randn_like(weights))
            for numbers in model.buffers():
                numbers.add_(1)
        update_average(ours, model)
        torchs.update_parameters(model)
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict())
    visual = ours.module.encoders.clip.visual.state_dict()
    assert all(
        torch.equal(visual[n], w) for n, w in model.encoders.clip.visual.state_dict().items()
    )


def test_features_of_the_cache_train_as_the_frames_do(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = config(data, cache, tmp_path, tune=("vision",))
    model = VLP(settings.model).eval()
    frames, _ = load_pool(model, settings, settings.data)
    features, _ = load_pool(model, dataclasses.replace(settings, tune=()), settings.data)
    rows = np.arange(4)
    with torch.inference_mode():
        seen = model.see(frames[0][0].gather(rows))
        cached = model.see(features[0][0].gather(rows))
    # The cache holds 16-bit numbers of the folded encoder.
    torch.testing.assert_close(cached, seen, rtol=5e-3, atol=5e-3 * float(seen.abs().max()))


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


def test_a_run_does_not_go_on_with_other_data(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint would name the new ones alone, and half of the training was of the old."""
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    settings = config(mine, cache, tmp_path / "run")
    monkeypatch.setattr(TrainingRun, "export", lambda *_: tmp_path)  # as if killed just before
    train(settings)
    Trajectories.load(mine / "DoorOpen.npz").take(np.arange(6)).save(mine / "DoorOpen.npz")
    with pytest.raises(CheckpointError, match="began with other data"):
        train(settings)
    shutil.copy(data / "DoorOpen.npz", mine)
    train(settings)
    resume = tmp_path / "run" / "resume.pt"
    resume.write_bytes(resume.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"resume\.pt is damaged"):
        train(settings)


def test_a_wrong_folder_of_data_leaves_the_run_folder_free(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError):
        train(config(tmp_path / "nowhere", cache, tmp_path / "run"))
    train(config(data, cache, tmp_path / "run", steps=1))


def test_a_sentence_that_the_model_cannot_read_is_refused_before_anything_is_drawn(
    tmp_path: Path,
) -> None:
    more = tmp_path / "more.json"
    more.write_text(json.dumps({"DoorOpen": ["unlatch " * 38 + "the door"]}))
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InstructionError, match=r"tokens, this model reads"):
        train(config(nowhere, nowhere, tmp_path / "run", instructions=more))


def test_data_that_make_no_batch_are_refused(cache: Path, tmp_path: Path) -> None:
    few = CollectConfig(
        out=tmp_path / "few", tasks=TRAIN, episodes={"random": 1}, n_steps=60, workers=1
    )
    with pytest.raises(DataError, match=r"has \d windows, and a batch draws 60"):
        batch = BatchConfig(tasks=3, windows=60, match_tasks=3)
        train(config(collect(few), cache, tmp_path / "run", batch=batch))
    with pytest.raises(DataError, match="not all of the levels"):
        train(config(tmp_path / "few", cache, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more"),
        ({"lr": float("nan")}, "lr must be 0 or more"),
        ({"average_from": 1.0}, "average_from"),
        ({"base": "bundled", "start": Path("x")}, "leave one of them out"),
        ({"loss": LossConfig(strangers=3)}, "lower it, or raise batch.tasks"),
        ({"view": View("corner4", SIZE_PX + 2)}, "make them the same"),
    ],
)
def test_settings_that_train_nothing_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        config(tmp_path, tmp_path, tmp_path, **changes)


def test_parts_of_a_batch_or_a_loss_that_mean_nothing_are_refused() -> None:
    for refused in ({"tasks": 0}, {"windows": 0}, {"match_tasks": 1}, {"mixed": 1.5}):
        with pytest.raises(SettingError):
            BatchConfig(**refused)  # type: ignore[arg-type]
    for wrong in ({"ilp": -0.1}, {"ivp": -1.0}, {"strangers": 0}):
        with pytest.raises(SettingError):
            LossConfig(**wrong)  # type: ignore[arg-type]


def test_windows_that_are_no_segments_are_told_of(
    data: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(data, cache, tmp_path / "run", steps=1))
    n_frames = tiny_config().n_frames
    assert f"span {8 * (n_frames - 1) + 1} steps" in caplog.text
    assert f"--grid.stride {49 // (n_frames - 1)} makes" in caplog.text


def test_a_look_at_unseen_episodes_that_a_kill_repeats_is_noted_once(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    save = TrainingRun.save

    def killed(run: TrainingRun) -> None:
        if run.step == 4:
            raise KilledError
        save(run)

    settings = config(data, cache, tmp_path / "run", validation=data)
    monkeypatch.setattr(TrainingRun, "save", killed)
    with pytest.raises(KilledError):
        train(settings)
    monkeypatch.setattr(TrainingRun, "save", save)
    train(settings)
    rows = (tmp_path / "run" / "validation.csv").read_text().split()[1:]
    assert [row.split(",")[0] for row in rows] == ["2", "4", "6"]


def test_start_weights_of_another_encoder_are_refused(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="encoders"):
        train(config(data, cache, tmp_path / "run", start=tmp_path / "none.safetensors"))


def test_a_split_whose_test_tasks_leak_is_refused() -> None:
    with pytest.raises(ValueError, match="leak"):
        Split(("DoorOpen", "Push"), ("Push",))


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
from statistics import fmean
from vlp_gym.tasks.splits import SPLITS, Split
from tests.tiny_training import TEST, TRAIN
from vlp_gym.training.trainer import train
if __name__ == "__main__":
    SPLITS["tiny"] = Split(TRAIN, TEST)
    train(pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def test_frames_are_drawn_once(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trajectories = Trajectories.load(data / "DoorOpen.npz")
    view = View("corner4", SIZE_PX)
    drawn = np.array(cached_frames(trajectories, view, GRID, cache / "frames"))
    monkeypatch.setattr("vlp_gym.training.frames._draw", lambda *_: pytest.fail("drawn again"))
    np.testing.assert_array_equal(cached_frames(trajectories, view, GRID, cache / "frames"), drawn)
