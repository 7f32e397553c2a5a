"""Shows an incident's progress in a terminal of any size: bars per region and specialist, and whatever waits.

Every text that comes from outside goes through `clipped`, and is never read as markup.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from oncall.cli.following import Sight
from oncall.cli.progress_lines import clock, coverage, standing
from oncall.model.action import Outcome
from oncall.model.agent import Specialist
from oncall.model.coverage import PlaceCoverage
from oncall.model.progress import IncidentProgress
from oncall.rules.ending import GOOD
from oncall.rules.text import clipped

_WIDEST_BAR = 20
_NARROWEST_BAR = 4
_WIDEST_REGION = 16
_PHASES = 4
_LINE = 300
"""Characters of one text from outside that are shown."""

Lines = list[list[Segment]]


@dataclass(frozen=True)
class Board:
    """Everything about a sight as of `now`. With `fit` it is no higher than the terminal: what matters least is cut."""

    sight: Sight
    now: datetime
    fit: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines, none of them wider than the terminal."""
        parts = [
            (importance, console.render_lines(shown, options, pad=False))
            for importance, shown in self._parts(options.max_width)
        ]
        # Not the options' height: it does not reach what a live screen shows.
        for line in _fitted(parts, console.height if self.fit else None):
            yield from line
            yield Segment.line()

    def _parts(self, width: int) -> Iterator[tuple[int, RenderableType]]:
        """From top to bottom, each part with its importance: 0 is the most."""
        sight, progress = self.sight, self.sight.progress
        yield 0, _head(sight, self.now)
        if sight.silent_since:
            silence = f"no answer since {lasted(self.now - sight.silent_since)}; still asking: {sight.why_silent}"
            yield 1, Text(clipped(silence, _LINE), style="bold red")
        if progress:
            if progress.waiting:
                yield 2, _waiting(progress, self.now)
            if progress.wave.places:
                yield 4, _bars(progress.wave.places, width)
            if progress.coverage.planned:
                yield 3, Text(f"agents {coverage(progress)}")
            if progress.actions:
                yield 5, _actions(progress)
            if progress.summary:
                yield 6, Text(clipped(progress.summary, _LINE))
            yield 8, _phases(progress, self.now, _PHASES if self.fit else len(progress.phases))
            if progress.notes:
                yield 7, Text("\n".join(clipped(f"note: {note}", _LINE) for note in progress.notes), style="yellow")
        if progress and progress.closed_at:
            yield 1, _ending(progress)
        else:
            yield 9, Text("Ctrl-C stops watching; the incident goes on", style="dim")


def _fitted(parts: Sequence[tuple[int, Lines]], height: int | None) -> Lines:
    """The lines of all parts in their order, parted by empty ones where there is room."""
    room = sum(len(lines) for _, lines in parts) + len(parts) if height is None else height
    granted: dict[int, int] = {}
    for index in sorted(range(len(parts)), key=lambda index: parts[index][0]):
        granted[index] = min(len(parts[index][1]), room)
        room -= granted[index]
    gap: Lines = [[]] if room >= len(parts) - 1 else []
    shown: Lines = []
    for index, (_, lines) in enumerate(parts):
        if not granted[index]:
            continue
        whole = granted[index] == len(lines)
        shown += gap if shown else []
        shown += lines if whole else [*lines[: granted[index] - 1], [Segment("…")]]
    return shown


def lasted(span: timedelta) -> str:
    """A duration in units that fit it; one below zero counts as none."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _head(sight: Sight, now: datetime) -> Text:
    outline, progress = sight.outline, sight.progress
    what = " ".join(filter(None, (outline.severity, outline.anomaly_type)))
    head = Text(clipped(outline.incident_id, _LINE), style="bold")
    head.append(f"  {clipped(what, 80)}\n", style="not bold")
    closed_at = progress.closed_at if progress else None
    since = f"open for {lasted(now - outline.opened_at)}"
    if closed_at:
        since = f"closed after {lasted(closed_at - outline.opened_at)}"
    head.append(clipped(sight.status, 80).replace("_", " ") or "not known yet", style="bold cyan")
    return head.append(f", {since}", style="not bold")


def _waiting(progress: IncidentProgress, now: datetime) -> Text:
    shown = Text()
    for request in progress.waiting:
        left = request.answer_by - now
        time = f"{lasted(left)} left" if left > timedelta(0) else f"the deadline was {clock(request.answer_by)}"
        shown.append("\n" if shown else "")
        shown.append(f"waits for an approver, {time}\n", style="bold yellow")
        shown.append(f"{clipped(request.what, _LINE)}\n")
        shown.append(clipped(f"oncall approve {request.request_id}", 80), style="bold")
    return shown


def _bars(places: Sequence[PlaceCoverage], width: int) -> Table:
    """A row per region with a column per specialist; where that is too wide, a row for each of them."""
    regions = sorted({place.region for place in places})
    specialists = [name for name in Specialist if any(place.specialist is name for place in places)]
    by_place = {(place.region, place.specialist): place for place in places}
    names = max(len(_name(region)) for region in regions)
    headings = max(len(name) for name in specialists)
    counts = max(2 * len(str(place.planned)) + 1 for place in places)

    table = Table.grid(padding=(0, 1, 0, 0))
    cell = (width - names - 1) // len(specialists) - 1
    if cell >= max(counts + 1 + _NARROWEST_BAR, headings):
        table.add_row("", *(Text(name, style="dim") for name in specialists))
        for region in regions:
            cells = (by_place.get((region, name)) for name in specialists)
            bars = (
                _bar(place, cell - counts - 1).append(f" {_count(place):>{counts}}") if place else "" for place in cells
            )
            table.add_row(Text(_name(region)), *bars)
        return table
    for region in regions:
        for name in specialists:
            if place := by_place.get((region, name)):
                bar = _bar(place, width - names - headings - counts - 4)
                table.add_row(Text(_name(region)), Text(name, style="dim"), bar, Text(f"{_count(place):>{counts}}"))
    return table


def _name(region: str) -> str:
    return clipped(region, _WIDEST_REGION)


def _count(place: PlaceCoverage) -> str:
    return f"{place.completed}/{place.planned}"


def _bar(place: PlaceCoverage, width: int) -> Text:
    """What is completed, what found nothing, and what is to come, each of its own character as well as colour. Nothing
    where there is no room for a bar."""
    if width < _NARROWEST_BAR:
        return Text()
    width = min(width, _WIDEST_BAR)
    missed = place.failed + place.timed_out + place.revoked + place.skipped
    done = width * place.completed // place.planned
    # One that failed among many must not vanish.
    lost = max(width * missed // place.planned, 1) if missed else 0
    done = min(done, width - lost)
    bar = Text("█" * done, style="green")
    bar.append("▓" * lost, style="red")
    return bar.append("░" * (width - done - lost), style="dim")


def _actions(progress: IncidentProgress) -> Text:
    shown = Text()
    for action in progress.actions:
        good = action.outcome is Outcome.SUCCEEDED
        style = "" if action.outcome is None else "green" if good else "yellow"
        shown.append("\n" if shown else "")
        shown.append(f"{action.type} {clipped(action.target.identity, 80)}: ")
        shown.append(clipped(standing(progress, action), _LINE), style=style)
    return shown


def _phases(progress: IncidentProgress, now: datetime, shown: int) -> Text:
    """The last phases, each with when it began and how long it took."""
    spans = (
        f"{span.started_at:%H:%M:%S} {span.phase.replace('_', ' ')}"
        + ("" if span.started_at == progress.closed_at else f" {lasted((span.ended_at or now) - span.started_at)}")
        for span in progress.phases[-shown:]
    )
    more = "… → " if len(progress.phases) > shown else ""
    return Text(more + " → ".join(spans), style="dim")


def _ending(progress: IncidentProgress) -> Text:
    recovered = {True: ": recovery was measured", False: ": recovery was measured, and is not there", None: ""}
    style = "bold green" if progress.status in GOOD else "bold red"
    shown = Text(f"{progress.status.replace('_', ' ')}{recovered[progress.recovered]}\n", style=style)
    return shown.append(clipped(f"oncall report {progress.incident_id}", 120), style="not bold default")
