"""The card of a data set: what is in it, who acted, how often that succeeded, and how to make it again."""

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.tasks.metaworld import find_task

CARD = "README.md"
"""Name of the card in the folder of its data set; the Hub shows it."""
MADE_WITH = ("vlp-gym", "metaworld", "mujoco")

_CARD = """---
license: mit
task_categories: [robotics]
tags: [{tags}]
{header}---
# {title}

{n_episodes} episodes of {n_tasks} Meta-World tasks, {n_steps} steps in all, by scripted and exploring behaviour. Every
episode follows from an integer of its own, all of which follow from seed {seed}.

```sh
{command}
```

makes it again. Written with {versions}, all free software (vlp-gym and Meta-World: MIT, MuJoCo: Apache 2.0).

## Who acts

An episode succeeds if the simulator says so at any of its steps.

| behaviour | episodes | steps | share that succeeds |
| --- | ---: | ---: | ---: |
{behaviours}

## Tasks

| task | instruction | episodes | steps | share that succeeds |
| --- | --- | ---: | ---: | ---: |
{tasks}
{notes}"""


def data_card(
    title: str,
    data: Iterable[Trajectories],
    *,
    seed: int,
    command: str,
    tags: Iterable[str] = (),
    header: str = "",
    notes: str = "",
) -> str:
    """Return the card of a data set, in Markdown under a YAML header that the Hub reads.

    Args:
        title: its name.
        data: its tasks; they are read one at a time.
        seed: what all its episodes follow from.
        command: the command line that makes it.
        tags: tags of the header beside our own.
        header: further lines of the YAML header, each with its line break.
        notes: further sections of Markdown.
    """
    of_behaviour, of_task = _Tally(), _Tally()
    for part in data:
        succeeded = np.any(part.success, axis=1)
        for name, success in zip(part.behaviour, succeeded.tolist(), strict=True):
            of_behaviour.add(name, part.n_steps, success)
            of_task.add(part.task_name, part.n_steps, success)
    return _CARD.format(
        tags=", ".join(["vlp-gym", "meta-world", *tags]),
        header=header,
        title=title,
        n_episodes=f"{of_task.episodes.total():,}",
        n_tasks=len(of_task.episodes),
        n_steps=f"{of_task.steps.total():,}",
        seed=seed,
        command=command,
        versions=", ".join(f"{name} {version(name)}" for name in MADE_WITH),
        behaviours="\n".join(f"| {name} | {of_behaviour.row(name)}" for name in of_behaviour.steps),
        tasks="\n".join(
            f"| {name} | {find_task(name).instruction} | {of_task.row(name)}"
            for name in of_task.steps
        ),
        notes=f"\n{notes}" if notes else "",
    )


class _Tally:
    """Counts of episodes, their steps and their successes under a name."""

    def __init__(self) -> None:
        self.episodes, self.steps, self.successes = Counter[str](), Counter[str](), Counter[str]()

    def add(self, name: str, n_steps: int, success: bool) -> None:
        """Count one episode."""
        self.episodes[name] += 1
        self.steps[name] += n_steps
        self.successes[name] += success

    def row(self, name: str) -> str:
        """Return the cells of a name in a table."""
        share = self.successes[name] / self.episodes[name]
        return f"{self.episodes[name]:,} | {self.steps[name]:,} | {share:.2f} |"
