"""Where the time of a learning agent goes: its own updates, env steps, each part of a feedback session, relabelling."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from stable_baselines3 import SAC

from benchmarks.schema import Record
from vlp_gym.sb3 import RelabelReplay

UPDATES, STEPS, RELABEL = "updates of the agent", "env steps", "relabelling and log"
REST = "the rest: choosing actions, storing"
ALIKE = "all, had updates taken as long as the first's"
"""Updates are the same work for every agent, but chance makes them a twentieth longer for one than for another."""
SESSION = "session: "
"""Begins the names of the parts of a feedback session."""


class Parts:
    """Tells what an agent's learning was spent on.

    Args:
        agent: its updates and the steps of its env are timed from now on.
        callback: what relabels its replay buffer, timed as well; None: the agent has no feedback.
    """

    def __init__(self, agent: SAC, callback: RelabelReplay | None = None) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._callback, self._n_sessions = callback, 0
        self._time(agent, "train", UPDATES)
        for name in ("step_async", "step_wait"):
            self._time(agent.env, name, STEPS)
        if callback is not None:
            self._time(callback, "_on_step", RELABEL)

    def _time(self, owner: Any, name: str, part: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            outcome = function(*args, **kwargs)
            self._seconds[part] += time.perf_counter() - started
            return outcome

        setattr(owner, name, timed)

    def split(self, total: float) -> dict[str, float]:
        """Return the seconds of every part since the last call; `REST` is what is left of `total`."""
        found, self._seconds = {STEPS: 0.0, **self._seconds}, defaultdict(float)
        sessions = self._sessions()
        found[STEPS] -= sum(
            sessions.values()
        )  # a session is held within the step that it is due after
        found.update(sessions)
        return {**found, REST: total - sum(found.values())}

    def _sessions(self) -> dict[str, float]:
        shared = None if self._callback is None else self._callback.shared
        if shared is None:
            return {}
        latest = shared.loop.history[self._n_sessions :]
        self._n_sessions += len(latest)
        seconds: dict[str, float] = defaultdict(float)
        for record in latest:
            of = record["seconds"]
            inner = {part: of[part] for part in ("draw", "score") if part in of}
            other = of["label"] - sum(inner.values())
            for part, value in {
                **inner,
                "other labelling": other,
                **{part: of[part] for part in ("query", "fit")},
            }.items():
                seconds[SESSION + part] += value
        return dict(seconds)


def medians(repeats: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of every part over repeats; a part that a repeat lacks took no time there.

    >>> medians([{"fit": 1.0}, {"fit": 3.0, "draw": 1.0}, {"fit": 2.0, "draw": 2.0}])
    {'fit': 2.0, 'draw': 1.0}
    """
    names = dict.fromkeys(name for repeat in repeats for name in repeat)
    return {name: median(repeat.get(name, 0.0) for repeat in repeats) for name in names}


def records_of(
    repeats: Mapping[str, Sequence[dict[str, float]]], task: str, seed: int, scale: str
) -> list[Record]:
    """Return one record a part: its seconds a repeat, median over repeats, one metric a method.

    The last record is their sum, with the first method's updates in the place of every one's.
    """
    seconds = {method: medians(each) for method, each in repeats.items()}
    parts = dict.fromkeys(part for each in seconds.values() for part in each)
    updates = next(iter(seconds.values())).get(UPDATES, 0.0)
    for each in seconds.values():
        each[ALIKE] = sum(each.values()) - each.get(UPDATES, 0.0) + updates
    return [
        Record.now(
            task=task,
            method=part,
            seed=seed,
            scale=scale,
            metrics={f"s {method}": each[part] for method, each in seconds.items() if part in each},
            seconds=0.0,
        )
        for part in (*parts, ALIKE)
    ]
