"""The offline benchmarks: parts add up, finished trainings are kept, the paper's numbers stand in their own columns."""

from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from agents import cpl, ipl, offline, piql
from benchmarks import offline as table
from benchmarks import offline_speed as speed
from benchmarks import paper
from benchmarks.bare_products import products_of
from benchmarks.schema import Record, read_records, write_records
from tests.tiny_offline import make_trajectories
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, DataError
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.scored_steps import paid_by

TINY = table.Scale(
    steps=4,
    iql_steps=4,
    cpl_steps=10,
    width=8,
    pairs=4,
    evaluate_every=2,
    iql_evaluate_every=2,
    cpl_evaluate_every=5,
    episodes=1,
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> table.Config:
    folder = tmp_path_factory.mktemp("offline")
    (folder / "data").mkdir()
    for task in ("ButtonPress", "DoorClose"):
        make_trajectories(task, n_steps=60).save(folder / "data" / f"{task}.npz")
    config = table.Config(
        tasks=("DoorClose",), methods=("cpl", "bc"), labels=("oracle",), seeds=(0, 1), scale=TINY,
        data=folder / "data", runs=folder / "runs", results=folder, device="cpu",
    )  # fmt: skip
    table.compare(config)
    table.compare(replace(config, tasks=("ButtonPress",), methods=("cpl",)))
    return config


def test_parts_of_the_table_add_up_in_the_papers_order(compared: table.Config) -> None:
    records = read_records("offline", compared.results)
    assert [(record.task, record.method) for record in records] == [
        ("ButtonPress", "CPL, scripted labels"),
        ("DoorClose", "CPL, scripted labels"),
        ("DoorClose", "BC of the segments, no labels"),
    ]
    assert records[0].paper == {table.PROTOCOL: 0.745}
    assert records[2].paper == {}
    assert records[0].metrics["label accuracy"] == 1.0
    table_path = compared.runs / "labels" / "ButtonPress-oracle.parquet"
    data = compared.data / "ButtonPress.npz"
    kinds = sorted(set(Trajectories.load(data).behaviour))
    shares = [
        table.share_of(table_path, data, {a, b}) for a, b in combinations_with_replacement(kinds, 2)
    ]
    assert sum(shares) == pytest.approx(1.0)
    assert records[0].metrics["expert and medium"] in shares
    assert "seeds 0, 1 together" in records[0].scale
    assert "4 gradient steps (CPL and BC: 10, IQL and P-IQL: 4, whose" in records[0].scale


def test_finished_trainings_are_not_done_again(
    compared: table.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("it trained again")

    monkeypatch.setattr(offline, "learn", refuse)
    monkeypatch.setattr(offline, "go_on", refuse)
    before = read_records("offline", compared.results)
    assert table.compare(compared) == before
    with pytest.raises(ValueError, match="other settings"):
        table.compare(replace(compared, scale=replace(TINY, cpl_steps=15)))


def test_a_method_with_all_tasks_gets_a_mean_and_an_interval() -> None:
    mean = table.mean_of("cpl", "vlp", [measured(task) for task in table.FIVE])
    assert (mean.task, mean.method) == (table.MEAN, "CPL, labels of VLP")
    assert mean.metrics[table.PROTOCOL] == pytest.approx(0.5)
    assert mean.metrics["95 % from"] <= mean.metrics["IQM"] <= mean.metrics["95 % to"]
    assert mean.metrics[table.LAST] == pytest.approx(0.4)
    assert mean.paper[table.PROTOCOL] == pytest.approx(0.838)


def test_what_other_machines_trained_stays_and_a_mean_is_never_of_other_trainings(
    tmp_path: Path,
) -> None:
    others = [measured(task) for task in table.FIVE]
    mean = table.mean_of("cpl", "vlp", others)
    write_records("offline", [*others, mean], tmp_path / "results")
    config = table.Config(
        tasks=("DoorClose",), methods=("cpl",), labels=("oracle",), seeds=(0,), scale=TINY,
        data=tmp_path / "data", runs=tmp_path / "runs", results=tmp_path / "results", device="cpu",
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    make_trajectories("DoorClose", n_steps=60).save(tmp_path / "data" / "DoorClose.npz")
    new, *kept = table.compare(config)
    assert (new.task, new.method) == ("DoorClose", "CPL, scripted labels")
    assert kept == [*others, mean]

    # One of five is measured again, the others have no numbers of single seeds: no mean can be made of them.
    again = measured("DoorClose", name="CPL, scripted labels", series={})
    write_records(
        "offline",
        [replace(each, method=again.method, series={}) for each in [*others, mean]],
        tmp_path,
    )
    records = table.write(replace(config, results=tmp_path))
    assert len(records) == 5 and table.MEAN not in {record.task for record in records}


def measured(task: str, name: str = "CPL, labels of VLP", **fields: Any) -> Record:
    metrics = {table.PROTOCOL: 0.5, table.LAST: 0.4, "at the last": 0.3, "untrained": 0.1}
    series = {table.LAST: [0.2, 0.6]}
    return Record(task, name, metrics, 2.0, **{"series": series, **fields})


def test_the_papers_table_is_that_of_its_five_tasks() -> None:
    assert [find_task(name).name for name in table.FIVE] == sorted(table.FIVE)
    averages = {key: round(sum(values) / 5, 1) for key, values in paper.SUCCESS.items()}
    assert averages == {
        ("piql", "oracle"): 62.9, ("piql", "vlp"): 71.0, ("ipl", "oracle"): 55.2, ("ipl", "vlp"): 57.5,
        ("cpl", "oracle"): 78.0, ("cpl", "vlp"): 83.8,
    }  # fmt: skip


def test_the_papers_other_models_have_its_averages() -> None:
    averages = {key: round(sum(each) / 5, 1) for key, each in paper.SUCCESS_OF_SCORERS.items()}
    assert averages == {
        ("iql", "r3m"): 38.5, ("iql", "vip"): 59.4, ("iql", "liv"): 47.5, ("iql", "clip"): 51.7,
        ("iql", "vlmrm:0.0"): 51.9, ("iql", "vlmrm:1.0"): 47.3, ("piql", "r3m"): 60.4, ("piql", "vip"): 51.9,
        ("piql", "liv"): 51.9, ("piql", "clip"): 53.6, ("piql", "vlmrm:0.0"): 56.7, ("piql", "vlmrm:1.0"): 42.2,
        ("piql", "roboclip"): 53.4,
    }  # fmt: skip
    assert paper.success_of("iql", "clip checkpoint=bundled") is None
    assert paper.success_of("piql", "vlmrm alpha=1") == (44.2, 45.7, 49.2, 51.3, 20.7)


def test_other_models_pay_and_label(tmp_path: Path) -> None:
    """Tables 3 and 4, with a stand-in for CLIP that is named as one."""
    collect(
        CollectConfig(
            "mtvlp", tmp_path / "data", ("DoorClose",), {"expert": 2, "random": 2}, 60, workers=1
        )
    )
    config = table.Config(
        tasks=("DoorClose",), methods=(), seeds=(0,), scale=replace(TINY, iql_steps=2), data=tmp_path / "data",
        runs=tmp_path / "runs", results=tmp_path, device="cpu",
        scorers=("clip checkpoint=bundled n_frames=4",),
    )  # fmt: skip
    assert [(each.method, each.paper) for each in table.compare(config)] == [
        ("IQL on the reward of clip (stand-in)", {}),
        ("P-IQL, labels of clip (stand-in)", {}),
    ]
    assert len(table.write(replace(config, scorers=()))) == 2  # they stay in the table
    assert table.name_of("iql", "vlmrm alpha=0.5") == "IQL on the reward of vlmrm:0.5"
    scores = tmp_path / "runs" / "scores" / "DoorClose-clip-n_frames-4.npz"
    data = Trajectories.load(tmp_path / "data" / "DoorClose.npz")
    np.testing.assert_array_equal(paid_by(scores, data).env_reward, np.load(scores)["score"])
    with pytest.raises(DataError, match="other trajectories"):
        paid_by(scores, data.take(np.arange(2)))
    with pytest.raises(CheckpointError, match="vlp score"):
        paid_by(tmp_path / "none.npz", data)
    scores.write_bytes(scores.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable file of scores"):
        paid_by(scores, data)


def test_what_the_table_has_no_row_for_is_refused() -> None:
    with pytest.raises(ValueError, match="methods must be of"):
        table.Config(methods=("sac",))


@pytest.mark.parametrize("name", ["cpl", "piql", "ipl"])
def test_speed_is_measured_with_equal_networks_and_batches(name: str) -> None:
    config = speed.Config(small=True, steps=1, repeats=1, warm_up=1, n_pairs=16, n_steps=20)
    steps = speed.contestants(name, config, speed.random_pairs(config))
    flops = {each: speed.flops_of(step) for each, step in steps.items()}
    # IPL looks once at states that the published code looks at twice.
    assert flops[speed.PUBLISHED] == pytest.approx(
        flops[speed.ONE], rel=0.08 if name == "ipl" else 0.02
    )
    assert flops[speed.FIVE] == 5 * flops[speed.ONE]
    found = speed.measure(config, steps)
    assert list(found) == [speed.PUBLISHED, speed.ONE, speed.FIVE, speed.MATMUL]
    records = speed.records_of(config, name, found, flops)
    assert [record.method for record in records] == [speed.PUBLISHED, speed.ONE, speed.FIVE]
    assert [record.metrics["times published"] for record in records][0] == 1
    assert [record.metrics["time of one seed"] for record in records][1] == 1
    rate = records[1].metrics
    assert rate["of the matmul rate"] == pytest.approx(
        rate["GFLOP a step"] * rate["steps/s"] * found[speed.MATMUL][0] / (2 * 2.048**3)
    )


def test_published_networks_have_as_many_weights_as_ours() -> None:
    data = speed.random_pairs(speed.Config(n_pairs=4, n_steps=20))
    agents = (
        cpl.CPL(cpl.Config(pairs=Path(), device="cpu"), data),
        piql.PIQL(piql.Config(pairs=Path(), device="cpu"), data),
        ipl.IPL(ipl.Config(pairs=Path(), device="cpu"), data),
    )
    for agent in agents:
        actor = agent.networks["actor"]
        hidden = tuple(bias.shape[-1] for bias in actor.body.biases)[:-1]
        plain = speed.mlp((39, *hidden, 4))
        count = sum(p.numel() for p in actor.body.parameters())
        assert count == sum(p.numel() for p in plain.parameters())
    critic = speed.Ensemble((43, 512, 512, 1))
    ours = agents[1].networks["critic"]
    assert sum(p.numel() for p in critic.parameters()) == sum(p.numel() for p in ours.parameters())
    assert critic(torch.zeros(3, 43)).shape == (2, 3)


class Called(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_bare_products_are_those_of_a_step_and_no_other_operation() -> None:
    config = speed.Config(small=True, n_pairs=20, n_steps=20)
    steps = speed.contestants("piql", config, speed.random_pairs(config))
    for step in steps.values():
        bare = products_of(step)
        assert speed.flops_of(bare) == speed.flops_of(step) > 0
        with Called() as called:
            bare()
        assert called.names <= {"aten.mm.out", "aten.bmm.out"}
