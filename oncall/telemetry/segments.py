"""Which Parquet files hold a range: one file per kind in a recording, rolling segments in a live estate.

A live segment is `<kind>/<start in epoch milliseconds>.parquet` and holds two seconds. Choosing by name keeps a read
at milliseconds; a glob over an hour of segments would cost a quarter of a second.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KINDS = ("metrics", "logs", "spans")
SEGMENT_MS = 2000
# The recorder writes the kinds of one segment one after the other: one this young may still lack its siblings.
_SETTLED_S = 0.25


@dataclass(frozen=True)
class Files:
    """The files to read, by kind (a kind without an entry is not recorded at all), and how far they are complete."""

    by_kind: dict[str, tuple[Path, ...]]
    end: datetime


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since the epoch; exact, where a float's product would not be."""
    delta = moment.astimezone(UTC) - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def choose(root: Path, start: datetime, end: datetime, kinds: Collection[str] = KINDS) -> Files:
    """The files of these `kinds` under `root` that hold rows from `start` to `end`.

    Raises OSError when `root` cannot be listed.
    """
    recorded: dict[str, tuple[Path, ...]] = {
        kind: (root / f"{kind}.parquet",) for kind in kinds if (root / f"{kind}.parquet").is_file()
    }
    if recorded:
        return Files(recorded, end)
    first, last = milliseconds(start) - SEGMENT_MS, milliseconds(end)
    found: dict[str, list[tuple[int, Path]]] = {}
    for kind in kinds:
        directory = root / kind
        if directory.is_dir():
            names = [(int(path.stem), path) for path in directory.iterdir() if _is_segment(path)]
            found[kind] = sorted(pair for pair in names if first < pair[0] and pair[0] + SEGMENT_MS <= last)
    if not found:
        # Lists the folder, so that a missing or unreadable one raises.
        next(root.iterdir(), None)
    complete = last
    if steady := found.get("metrics"):
        newest, path = steady[-1]
        if _age_s(path) < _SETTLED_S and len(steady) > 1:
            newest = steady[-2][0]
        complete = min(last, newest + SEGMENT_MS)
    chosen = {
        kind: tuple(path for name, path in pairs if name + SEGMENT_MS <= complete) for kind, pairs in found.items()
    }
    return Files(chosen, min(end, datetime.fromtimestamp(complete / 1000, UTC)))


def _is_segment(path: Path) -> bool:
    return path.suffix == ".parquet" and path.stem.isdigit()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return _SETTLED_S
