"""Offline agents: seeds together are seeds alone, a saved state is all there is, labels decide."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import cpl, ipl, iql, learning, piql
from agents.draws import Batches, Dropout
from agents.networks import Actor, StackedMLP, adam
from tests.tiny_offline import make_comparisons, make_transitions
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.errors import DataError

TINY_IQL = iql.IQLConfig(hidden=(24, 24), learning_rate=3e-3)
TINY: dict[str, Any] = {"steps": 12, "batch_size": 7, "device": "cpu"}


def make_cpl(seeds: tuple[int, ...], data: Comparisons, **options: Any) -> cpl.CPL:
    settings = {"hidden": (24, 24), "bc_steps": 4, "warmup_steps": 3, "learning_rate": 3e-3, **TINY}
    return cpl.CPL(cpl.Config(pairs=Path(), seeds=seeds, **{**settings, **options}), data)


AGENTS: dict[str, Callable[[tuple[int, ...]], learning.Learner]] = {
    "iql": lambda seeds: iql.IQL(
        iql.Config(data=Path(), seeds=seeds, iql=TINY_IQL, **TINY), make_transitions()
    ),
    "piql": lambda seeds: piql.PIQL(
        piql.Config(pairs=Path(), seeds=seeds, iql=TINY_IQL, reward_hidden=(24,), reward_steps=8, **TINY),
        make_comparisons(),
    ),
    "piql on trajectories": lambda seeds: piql.PIQL(
        piql.Config(pairs=Path(), seeds=seeds, iql=TINY_IQL, reward_hidden=(24,), replay_batch_size=9, **TINY),
        make_comparisons(),
        make_transitions(),
    ),
    "ipl": lambda seeds: ipl.IPL(
        ipl.Config(pairs=Path(), seeds=seeds, hidden=(24, 24), window=4, replay_batch_size=9, **TINY),
        make_comparisons(),
        make_transitions(),
    ),
    "cpl": lambda seeds: make_cpl(seeds, make_comparisons()),
    "cpl-kl": lambda seeds: make_cpl(seeds, make_comparisons(), variant="cpl-kl"),
}  # fmt: skip


def members_of(learner: learning.Learner, n_seeds: int, seed: int) -> dict[str, np.ndarray]:
    """Return the weights of one seed."""
    found: dict[str, torch.Tensor] = {}
    for name, network in learner.networks.items():
        body = network.body if isinstance(network, Actor) else network
        assert isinstance(body, StackedMLP)
        for number, layer in enumerate(zip(body.weights, body.biases, strict=True)):
            found |= {f"{name} {part} {number}": each for part, each in enumerate(layer)}
        if isinstance(network, Actor) and network.log_std is not None:
            found[f"{name} log_std"] = network.log_std.detach()
    return {
        name: each.reshape(n_seeds, -1, *each.shape[1:])[seed].numpy()
        for name, each in found.items()
    }


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", AGENTS)
def test_a_seed_among_others_learns_bit_for_bit_what_it_learns_alone(
    name: str, one_thread: Any
) -> None:
    together = AGENTS[name]((3, 0, 7))
    infos = [together.update() for _ in range(12)]
    for place, seed in enumerate((3, 0, 7)):
        alone = AGENTS[name]((seed,))
        for info in infos:
            for part, value in alone.update().items():
                assert value[0] == info[part][place], part
        expected = members_of(alone, 1, 0)
        for part, value in members_of(together, 3, place).items():
            np.testing.assert_array_equal(value, expected[part], err_msg=part)
        obs = torch.randn(4, 5)
        torch.testing.assert_close(together.act(obs, place), alone.act(obs, 0), rtol=0, atol=0)


@pytest.mark.parametrize("rows, widths", [(400, (43, 128, 128, 1)), (2_100, (39, 512, 512, 4))])
def test_a_network_among_others_has_its_own_results_and_gradient(
    rows: int, widths: tuple[int, ...], one_thread: Any
) -> None:
    """At the sizes of the benchmarks; the larger one is done network by network."""
    dropout = [Dropout(seeds, 0.25, torch.device("cpu")) for seeds in ((3, 0, 7), (7,))]
    together = StackedMLP((3, 0, 7), "net", widths, dropout=dropout[0])
    alone = StackedMLP((7,), "net", widths, dropout=dropout[1])
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, rows, widths[0], generator=generator)
    outs = []
    for network, seen in ((together, inputs), (alone, inputs[2:])):
        out, trace = network.traced(seen, 5)
        network.set_gradient(trace, 2 * out)
        outs.append(out)
    assert torch.equal(outs[0][2], outs[1][0])
    gradients = [net._shape.layers_in(net.numbers.grad) for net in (together, alone)]
    for several, one in zip(*gradients, strict=True):
        assert torch.equal(several.weight[2], one.weight[0])
        assert torch.equal(several.bias[2], one.bias[0])


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_saved_is_all_that_the_rest_depends_on(name: str) -> None:
    whole, half = AGENTS[name]((0, 1)), AGENTS[name]((0, 1))
    for _ in range(12):
        whole.update()
    for _ in range(5):
        half.update()
    resumed = AGENTS[name]((0, 1))
    learning.load_learner_state(resumed, learning.learner_state(half))
    while resumed.step < 12:
        resumed.update()
    ends = [learning.learner_state(each) for each in (whole, resumed)]
    for part in ("networks", "optimizers"):
        np.testing.assert_equal(ends[0][part], ends[1][part])


def test_the_value_that_judges_regret_is_the_one_that_was_learned() -> None:
    learner = AGENTS["iql"]((0, 1))
    assert isinstance(learner, iql.IQL)
    for _ in range(3):
        learner.update()
    obs = torch.randn(6, 5)
    for seed in (0, 1):
        expected = learner.core.value.of_seed(obs, seed).flatten().detach()
        np.testing.assert_allclose(learner.value_of(seed)(obs.numpy()), expected, atol=1e-6)
    assert not isinstance(AGENTS["cpl"]((0,)), learning.HasValue)


def test_a_state_of_other_data_is_refused() -> None:
    state = learning.learner_state(make_cpl((0,), make_comparisons()))
    with pytest.raises(ValueError, match="begun with other data"):
        learning.load_learner_state(make_cpl((0,), make_comparisons(seed=9)), state)


def test_a_step_of_adam_is_pytorchs() -> None:
    ours, theirs = (StackedMLP((0, 1), "net", (5, 8, 2)) for _ in range(2))
    one, other = adam(ours, 1e-2), adam(theirs, 1e-2)
    for rate in (1e-2, 3e-3, 1e-2):
        for network, optimizer in ((ours, one), (theirs, other)):
            learning.set_learning_rate(optimizer, rate)
            network.numbers.grad = network.numbers.detach() ** 2 + rate
        learning.adam_step(one)
        other.step()
    assert torch.equal(ours.numbers, theirs.numbers)
    states = [learner.state_dict()["state"][0] for learner in (one, other)]
    assert all(torch.equal(states[0][part], states[1][part]) for part in states[1])


def test_every_row_of_an_epoch_comes_once() -> None:
    batches = Batches((0, 5), "rows", n_rows=10, size=4)
    rows = np.concatenate([batches.at(step) for step in range(10)], axis=1)
    for of_seed in rows.reshape(2, 4, 10):
        for epoch in of_seed:
            assert sorted(epoch) == list(range(10))
    assert (rows[0] != rows[1]).any()
    large = Batches((0,), "rows", n_rows=3, size=8).at(1)
    assert (np.bincount(large[0]) >= 2).all()


def test_dropout_keeps_the_mean_and_follows_seed_step_and_layer() -> None:
    dropout = Dropout((0, 1), 0.25, torch.device("cpu"))
    mask = dropout.at(3, 0, 200, 100)
    assert set(np.unique(mask)) == {0.0, np.float32(4 / 3)}
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(mask, dropout.at(3, 0, 200, 100))
    for other in (dropout.at(4, 0, 200, 100), dropout.at(3, 1, 200, 100), mask.flip(0)):
        assert not torch.equal(mask, other)
    alone = Dropout((1,), 0.25, torch.device("cpu")).at(3, 0, 200, 100)
    assert torch.equal(mask[1:], alone)
    with pytest.raises(ValueError, match="dropout"):
        Dropout((0,), 1.0, torch.device("cpu"))


def preferring_large_actions(n_pairs: int = 60, steps: int = 8) -> Comparisons:
    """Return pairs in which the segment of the higher first action is preferred."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2 * n_pairs, steps, 3)).astype(np.float32)
    level = rng.uniform(-0.9, 0.9, (2 * n_pairs, 1, 1))
    action = np.clip(level + 0.05 * rng.normal(size=(2 * n_pairs, steps, 1)), -1, 1)
    pairs = np.arange(2 * n_pairs).reshape(n_pairs, 2)
    worth = action.sum((1, 2))[pairs]
    label = (worth[:, 1] > worth[:, 0]).astype(np.float32)
    return Comparisons(obs, action.astype(np.float32), pairs, label, np.ones(n_pairs, np.float32))


PREFERRING: dict[str, Callable[[Comparisons], learning.Learner]] = {
    "cpl": lambda data: make_cpl(
        (0, 1), data, steps=300, bc_steps=20, warmup_steps=10, batch_size=30, dropout=0.0
    ),
    "piql": lambda data: piql.PIQL(
        piql.Config(
            pairs=Path(), seeds=(0, 1), steps=300, batch_size=30, reward_steps=200, reward_hidden=(24, 24),
            iql=replace(TINY_IQL, dropout=0.0, discount=0.5, polyak=0.1), device="cpu",
        ),
        data,
    ),
    "ipl": lambda data: ipl.IPL(
        ipl.Config(
            pairs=Path(), seeds=(0, 1), steps=300, batch_size=30, window=None, hidden=(24, 24), discount=0.5,
            learning_rate=3e-3, regularization=0.5, polyak=0.1, device="cpu",
        ),
        data,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREFERRING)
def test_flipped_labels_teach_the_opposite(name: str) -> None:
    data = preferring_large_actions()
    obs = torch.from_numpy(data.obs[:10].reshape(-1, 3))
    learners = [PREFERRING[name](each) for each in (data, data.flipped())]
    for learner in learners:
        for _ in range(300):
            learner.update()
    for seed in (0, 1):
        told, flipped = (learner.act(obs, seed).mean().item() for learner in learners)
        assert told > flipped + 0.2
        assert told > data.action.mean() > flipped


def test_replay_of_another_task_is_refused() -> None:
    data = make_comparisons(task_name="DoorClose")
    replay = make_transitions(task_name="DoorOpen")
    with pytest.raises(DataError, match="the same task and layout"):
        ipl.IPL(ipl.Config(pairs=Path(), window=4, device="cpu"), data, replay)
    with pytest.raises(DataError, match="the same task and layout"):
        piql.PIQL(piql.Config(pairs=Path(), device="cpu"), data, replay)
