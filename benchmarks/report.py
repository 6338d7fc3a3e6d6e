"""Writes the tables of the README and of `benchmarks/README.md` from the results: `python -m benchmarks.report`.

A table stands between `<!-- results:NAME -->` and `<!-- /results:NAME -->`. Nothing between the two
is written by hand; a test fails when the README differs from the results.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.schema import RESULTS, Record, read_records

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE / "README.md")
"""Texts that have tables."""
MARKED = re.compile(
    r"(<!-- results:(?P<name>[\w-]+) -->\n).*?(<!-- /results:(?P=name) -->)", re.DOTALL
)
NOT_MEASURED = "*Not measured yet.*"


@dataclass(frozen=True)
class Row:
    """One line of a table: the records of one task and method, over all seeds."""

    task: str
    method: str
    records: tuple[Record, ...]

    def values(self, metric: str) -> list[float]:
        """Return what every seed measured."""
        return [record.metrics[metric] for record in self.records if metric in record.metrics]

    def paper(self, metric: str) -> float | None:
        """Return the paper's number, if it prints one."""
        return next(
            (record.paper[metric] for record in self.records if metric in record.paper), None
        )


def render(markdown: str, folder: Path = RESULTS) -> str:
    """Return the text with every marked table written anew from the results in `folder`."""
    return MARKED.sub(
        lambda found: found[1] + table(found["name"], folder) + "\n" + found[3], markdown
    )


def table(name: str, folder: Path = RESULTS) -> str:
    """Return the Markdown table of `results/<name>.json`, and below it where it was measured."""
    records = read_records(name, folder)
    if not records:
        return NOT_MEASURED
    rows = rows_of(records)
    metrics = list(dict.fromkeys(metric for record in records for metric in record.metrics))
    printed = [metric for metric in metrics if any(metric in record.paper for record in records)]
    lead = ["task", "method"] if any(row.task != "-" for row in rows) else ["method"]
    head = lead + [column for metric in metrics for column in _columns(metric, printed)]
    lines = [_line(head), _line(["---"] * len(lead) + ["---:"] * (len(head) - len(lead)))]
    for row in rows:
        cells = [row.task, row.method][-len(lead) :]
        for metric in metrics:
            cells.append(_ours(row.values(metric)))
            if metric in printed:
                cells.append(_number(row.paper(metric)))
        lines.append(_line(cells))
    return "\n".join([*lines, "", footnote(records)])


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Return one row for each task and method, in the order in which they were written."""
    keys = dict.fromkeys((record.task, record.method) for record in records)
    return [
        Row(
            task,
            method,
            tuple(record for record in records if (record.task, record.method) == (task, method)),
        )
        for task, method in keys
    ]


def footnote(records: Sequence[Record]) -> str:
    """Return the scale, seeds, commits and machines behind a table, in one line."""
    seeds = sorted({record.seed for record in records if record.seed is not None})
    parts = [
        "; ".join(_unique([record.scale for record in records])),
        f"seeds {', '.join(map(str, seeds))}" if seeds else "",
        f"commit {', '.join(_unique([record.commit for record in records]))}",
        "; ".join(_unique([_machine(record) for record in records])),
    ]
    return f"<sub>{' · '.join(part for part in parts if part)}</sub>"


def _machine(record: Record) -> str:
    machine = {"cores": "?", "cpu": "an unknown processor", "gpu": None, **record.machine}
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    name = f"{cores} of {machine['cpu']}"
    return f"{name}, {machine['gpu']}" if machine["gpu"] else name


def _unique(texts: Sequence[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _columns(metric: str, printed: Sequence[str]) -> list[str]:
    return [metric, f"{metric} (paper)"] if metric in printed else [metric]


def _ours(values: Sequence[float]) -> str:
    """Return one value, or the mean with every seed's value behind it: an average hides nothing."""
    if len(values) < 2:
        return _number(values[0] if values else None)
    return f"{_number(fmean(values))} ({', '.join(map(_number, values))})"


def _number(value: float | None) -> str:
    """Return three significant digits, thousands with commas, a dash for none."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Rewrite the pages; with `--check`, only say whether they are up to date."""
    for page in PAGES:
        present = page.read_text(encoding="utf-8")
        wanted = render(present)
        if "--check" not in sys.argv[1:]:
            page.write_text(wanted, encoding="utf-8")
        elif present != wanted:
            sys.exit(f"{page} differs from benchmarks/results; run `python -m benchmarks.report`")


if __name__ == "__main__":
    main()
