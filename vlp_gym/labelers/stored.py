"""A labeler that is never asked the same twice, and whose answers survive a kill."""

from time import perf_counter
from typing import Any

import numpy as np

from vlp_gym.labelers.store import Answer, Comparison, LabelStore, comparison_of
from vlp_gym.types import Labeler, Labels, Pair, Status


class StoredLabeler:
    """Asks a labeler only what its store does not know, a few pairs at a time, and keeps every answer at once.

    For labelers that are slow or dear: people, and models behind a network. A run that is killed in the middle of a
    session and goes on asks the rest. Failed pairs are not kept; abstentions are.

    Args:
        labeler: who answers; its `identity`, or without one its `name`, must change when its answers would.
        store: where answers are looked up and kept.
        batch: pairs asked at once, which a kill loses at most.

    Raises:
        ValueError: the labeler draws random numbers (it has `state_dict`): an answer that is remembered instead of
            given would change all later ones.
    """

    def __init__(self, labeler: Labeler, store: LabelStore, batch: int = 8) -> None:
        if hasattr(labeler, "state_dict"):
            raise ValueError(
                "a label store is for labelers that answer the same to the same; this one has a state (`state_dict`): "
                "leave the store out"
            )
        self._labeler, self.store, self._batch = labeler, store, batch
        self.name = str(getattr(labeler, "name", type(labeler).__name__))
        self.scene = getattr(labeler, "scene", None)

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs."""
        identity = str(getattr(self._labeler, "identity", self.name))
        asked = [comparison_of(identity, pair) for pair in pairs]
        answers = self.store.labels(asked)
        missing = [row for row, answer in enumerate(answers) if answer is None]
        for start in range(0, len(missing), self._batch):
            rows = missing[start : start + self._batch]
            fresh = self._ask([pairs[row] for row in rows], [asked[row] for row in rows])
            for row, answer in zip(rows, fresh, strict=True):
                answers[row] = answer
        return _labels_of(answers)

    def _ask(self, pairs: list[Pair], asked: list[Comparison]) -> list[Answer | None]:
        started = perf_counter()
        labels = self._labeler(pairs)
        if not isinstance(labels, Labels) or len(labels) != len(pairs):
            got = len(labels) if isinstance(labels, Labels) else type(labels).__name__
            raise ValueError(
                f"asked about {len(pairs)} pairs, it returned {got}; a labeler returns Labels with one row a pair"
            )
        answers = [_answer_of(labels, row) for row in range(len(pairs))]
        given = [row for row, answer in enumerate(answers) if answer is not None]
        kept = [answer for answer in answers if answer is not None]
        self.store.add_labels([asked[row] for row in given], kept, perf_counter() - started)
        return answers


def _answer_of(labels: Labels, row: int) -> Answer | None:
    if labels.status[row] == Status.FAILED:
        return None
    extra = {name: np.asarray(column)[row].item() for name, column in labels.extra.items()}
    value = float(labels.value[row]) if labels.status[row] == Status.LABELLED else None
    return Answer(value, extra)


def _labels_of(answers: list[Answer | None]) -> Labels:
    value = [np.nan if each is None or each.value is None else each.value for each in answers]
    status = [
        Status.FAILED
        if each is None
        else Status.ABSTAINED
        if each.value is None
        else Status.LABELLED
        for each in answers
    ]
    told = [{} if each is None else each.extra for each in answers]
    names = dict.fromkeys(name for extra in told for name in extra)
    extra: dict[str, Any] = {}
    for name in names:
        present = [each[name] for each in told if name in each]
        blank: Any = "" if isinstance(present[0], str) else np.nan
        extra[name] = np.array([each.get(name, blank) for each in told])
    return Labels(np.array(value, np.float32), np.array(status, np.int8), extra)
