"""What the objective teaches which part of a preference model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    SENTENCES,
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from tests.tiny_vlp import tiny_config
from vlp_gym.models.vlp import VLP
from vlp_gym.training.batches import preference_batch
from vlp_gym.training.objective import LossConfig, Objective
from vlp_gym.training.trainer import load_pool


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


@pytest.mark.parametrize("undo", [0.0, 1.0])
def test_clips_of_a_task_are_ordered_by_progress_and_not_by_the_match(
    data: Path, cache: Path, tmp_path: Path, undo: float
) -> None:
    settings = config(data, cache, tmp_path, model=tiny_config(match_width=8))
    torch.manual_seed(0)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, settings.data)
    batch = preference_batch(pool, SENTENCES, settings.batch, np.random.default_rng(0))
    # SENTENCES has DoorClose's, and so DoorOpen's clips are judged under it, too.
    assert any(sentence is not None for sentence in batch.undoing)
    order = LossConfig(ilp=0.0, ivp=0.0, strangers=1, undo=undo, centre=0.0, state=0.0)
    loss, info = Objective(model, order)(batch, None)
    assert ("undo_loss" in info) == bool(undo)
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.match is not None
    assert not any(bool(w.grad.any()) for w in model.match.parameters() if w.grad is not None)
    assert bool(model.score_head[1].weight.grad.any())


def test_the_mean_progress_is_kept_at_zero(data: Path, cache: Path, tmp_path: Path) -> None:
    settings = config(data, cache, tmp_path, model=tiny_config(match_width=8))
    torch.manual_seed(0)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, settings.data)
    batch = preference_batch(pool, SENTENCES, settings.batch, np.random.default_rng(0))

    def loss(centre: float, offset: float) -> float:
        progress = model.progress
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "progress", lambda *pair: progress(*pair) + offset)
            weights = LossConfig(ilp=0.0, ivp=0.0, strangers=1, centre=centre)
            return float(Objective(model, weights).eval()(batch, None)[0].detach())

    # An offset that every clip of a task has leaves their order alone.
    assert loss(0.0, 7.0) == pytest.approx(loss(0.0, 0.0), abs=1e-4)
    far, near = (loss(1.0, offset) - loss(0.0, offset) for offset in (7.0, 0.0))
    assert np.sqrt(far) == pytest.approx(7.0, abs=np.sqrt(near) + 1e-3)


def test_what_learns_tells_tasks_apart_with_a_slope(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    """However sharply a model scores: a sharp match would learn nothing of a clip that it is sure of."""
    losses = []
    for sharpness in (1.0, 50.0):
        sharp = tiny_config(match_width=8, match_sharpness=sharpness, match_margin=3.0)
        settings = config(data, cache, tmp_path / str(sharpness), model=sharp)
        torch.manual_seed(0)
        model = VLP(settings.model)
        pool, _ = load_pool(model, settings, settings.data)
        batch = preference_batch(pool, SENTENCES, settings.batch, np.random.default_rng(0))
        losses.append(Objective(model, LossConfig(strangers=1)).eval()(batch, None)[1])
    assert losses[0] == losses[1]


def test_the_total_is_the_papers(data: Path, cache: Path, tmp_path: Path) -> None:
    """Of two clips of each task: ITP + lambda 1 ILP + lambda 2 IVP of either clip (VLP section 3.3)."""
    settings = config(data, cache, tmp_path, model=tiny_config(match_width=0))
    torch.manual_seed(0)
    model = VLP(settings.model)
    pool, _ = load_pool(model, settings, settings.data)
    batch = preference_batch(pool, SENTENCES, settings.batch, np.random.default_rng(0))
    pair = dataclasses.replace(
        batch,
        clips=batch.clips[:, :2],
        state=batch.state[:, :2],
        label=batch.label[:, :2, :2],
        weight=torch.tensor([[0.0, 1.0], [0.0, 0.0]]).expand(len(batch.sentences), 2, 2),
        undone_label=batch.undone_label[:, :2, :2],
        undone_weight=batch.undone_weight[:, :2, :2],
    )
    weights = LossConfig(ilp=0.1, ivp=0.5, strangers=1, state=0.0)
    total, _ = Objective(model, weights).eval()(pair, None)

    def score(task: int, clip: int, sentence: int) -> torch.Tensor:
        seen = model.see(pair.clips[task, clip : clip + 1])
        words = model.read_words(model.encoders.tokenize(pair.sentences[sentence])[None])
        return model.worth(model.progress(model.read_video(seen), words))[0]

    model.eval()
    n_tasks, expected = len(pair.sentences), torch.zeros(())
    for own in range(n_tasks):
        other = (own + 1) % n_tasks
        mine, theirs = ([score(task, clip, own) for clip in range(2)] for task in (own, other))
        prefer_second = torch.sigmoid(mine[1] - mine[0])
        label = pair.label[own, 0, 1]
        itp = -(label * prefer_second.log() + (1 - label) * (1 - prefer_second).log())
        neither = torch.sigmoid(theirs[1] - theirs[0])
        ilp = -0.5 * (neither.log() + (1 - neither).log())
        # A clip of the other task, drawn alike for each of the two: the mean over the stranger's clips.
        ivp = [-torch.sigmoid(one - torch.stack(theirs)).log().mean() for one in mine]
        expected = expected + itp + 0.1 * ilp + 0.5 * (ivp[0] + ivp[1])
    torch.testing.assert_close(total, expected / n_tasks, rtol=1e-4, atol=1e-5)
