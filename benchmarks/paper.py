"""What VLP (arXiv 2502.11918) prints for its five unseen tasks, in alphabetical order: ButtonPress to WindowOpen."""

from benchmarks.scorer_words import ScorerWords

SUCCESS = {
    ("piql", "oracle"): (72.6, 79.2, 49.3, 51.1, 62.4),
    ("piql", "vlp"): (90.1, 79.2, 64.9, 51.1, 69.7),
    ("ipl", "oracle"): (50.6, 61.5, 64.3, 45.4, 54.1),
    ("ipl", "vlp"): (56.0, 61.5, 63.2, 45.4, 61.4),
    ("cpl", "oracle"): (74.5, 98.5, 45.6, 80.0, 91.6),
    ("cpl", "vlp"): (83.9, 98.5, 57.5, 80.0, 99.1),
}
"""Success in percent on the five tasks in alphabetical order (VLP, table 2)."""
SUCCESS_OF_SCORERS = {
    ("iql", "r3m"): (10.1, 70.9, 46.6, 25.7, 39.0),
    ("iql", "vip"): (68.4, 74.8, 70.4, 40.9, 42.7),
    ("iql", "liv"): (56.3, 43.3, 61.8, 42.2, 33.8),
    ("iql", "clip"): (59.5, 43.6, 69.4, 59.6, 26.4),
    ("iql", "vlmrm:0.0"): (60.3, 45.8, 69.4, 60.1, 23.9),
    ("iql", "vlmrm:1.0"): (64.3, 41.1, 73.5, 33.7, 23.7),
    ("piql", "r3m"): (84.7, 72.4, 59.6, 58.0, 27.3),
    ("piql", "vip"): (41.2, 54.2, 63.0, 51.1, 50.2),
    ("piql", "liv"): (61.7, 67.9, 45.5, 62.3, 22.2),
    ("piql", "clip"): (62.9, 53.3, 63.4, 60.2, 28.4),
    ("piql", "vlmrm:0.0"): (72.8, 57.6, 62.7, 57.3, 33.2),
    ("piql", "vlmrm:1.0"): (44.2, 45.7, 49.2, 51.3, 20.7),
    ("piql", "roboclip"): (56.4, 47.6, 73.0, 62.1, 28.1),
}
"""The same of other vision-language models (VLP, tables 3 and 4)."""
LABEL_ACCURACY = {
    "vlp": (93, 100, 96, 100, 98),
    "clip": (53, 49, 66, 38, 81),
    "vlmrm:0.0": (62, 59, 65, 25, 88),
    "vlmrm:1.0": (41, 10, 58, 65, 16),
    "r3m": (91, 98, 66, 98, 72),
    "vip": (40, 57, 49, 100, 88),
    "liv": (62, 97, 39, 97, 16),
    "roboclip": (46, 61, 43, 63, 49),
}
"""VLP, table 15, in percent, in the order of the split "paper"."""
CORRELATION = {
    "vlp": (0.581, 1.000, 0.438, 1.000, 0.571),
    "clip": (0.127, -0.309, -0.151, -0.301, 0.336),
    "vlmrm:0.0": (0.153, -0.152, -0.137, -0.291, 0.405),
    "vlmrm:1.0": (-0.082, -0.492, -0.031, 0.084, -0.333),
    "r3m": (0.313, 0.735, -0.106, 0.676, 0.411),
    "vip": (0.204, 0.125, 0.043, 0.851, 0.725),
    "liv": (-0.281, 0.600, 0.052, 0.563, -0.568),
}
"""VLP, table 5."""


def success_of(method: str, judge: str | None) -> tuple[float, ...] | None:
    """Return what is printed of a method, in percent, labelled or paid by a judge; None where nothing of the kind is.

    Args:
        method: `piql`, `ipl`, `cpl` or `iql`.
        judge: `oracle`, `vlp`, or a scorer as a command line names it; a stand-in has no printed number.
    """
    if judge is None:
        return None
    if (method, judge) in SUCCESS:
        return SUCCESS[method, judge]
    asked = ScorerWords.read(judge)
    return None if asked.is_stand_in else SUCCESS_OF_SCORERS.get((method, asked.printed))
