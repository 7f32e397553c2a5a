"""One line of the table: what was measured, how sure that is, and what the budget says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.statistics import Estimate

NOT_YET_BUILT = "not yet built"


@dataclass(frozen=True)
class Row:
    """A measurement against a budget in the same unit; without a budget it is there to be read beside the others.

    `estimate` is None for what cannot be measured yet. `note` says how it was measured.
    """

    benchmark: str
    what: str
    estimate: Estimate | None
    unit: str = ""
    budget: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`ok` or `over` by the median, "" without a budget."""
        if self.estimate is None:
            return NOT_YET_BUILT
        if self.budget is None:
            return ""
        return "ok" if self.estimate.value <= self.budget else "over"

    def document(self) -> dict[str, Any]:
        """The row as JSON."""
        found = self.estimate
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "unit": self.unit,
            "n": found.n if found else 0,
            "median": found.value if found else None,
            "ci95": [found.low, found.high] if found else None,
            "budget": self.budget,
            "verdict": self.verdict,
            "note": self.note,
        }


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns, their notes numbered below."""
    notes: list[str] = []
    lines = [("what", "median", "95 % CI", "n", "budget", "")]
    for row in rows:
        mark = ""
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            mark = f" [{notes.index(row.note) + 1}]"
        found = row.estimate
        interval = f"{_number(found.low)} … {_number(found.high)}" if found and found.n > 1 else ""
        lines.append(
            (
                row.what + mark,
                f"{_number(found.value)} {row.unit}".rstrip() if found else "–",
                interval,
                str(found.n) if found else "",
                f"≤ {_number(row.budget)} {row.unit}".rstrip() if row.budget is not None else "",
                row.verdict,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "─" * max(map(len, text)))
    return "\n".join([*text, "", *(f"[{number}] {note}" for number, note in enumerate(notes, 1))])


def _number(value: float) -> str:
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
