"""What a campaign came to, for people and for programs."""

from collections import Counter
from statistics import median
from typing import Any

from tests.campaign.campaign import Result
from tests.campaign.points import POINTS, SERVER
from tests.campaign.strikes import RANDOM, Strike


def figures(result: Result) -> dict[str, Any]:
    """The counts: points, kills, restarts, endings, the zeros and the agents. Seconds are medians and maxima."""
    verdicts = [fought.verdict for fought in result.fought]
    strikes = [strike for fought in result.fought for strike in fought.strikes if strike.hit]
    on_workers = [strike for strike in strikes if strike.victim != SERVER]
    on_server = [strike for strike in strikes if strike.victim == SERVER]
    unknown = [unknown for verdict in verdicts for unknown in verdict.unknown]
    control = result.control
    return {
        "seed": result.seed,
        "incidents": len(result.fought),
        "endings": dict(Counter(verdict.ending for verdict in verdicts)),
        "points_hit": len({strike.point for strike in strikes} - {RANDOM}),
        "points_unreached": list(result.unreached),
        "kills_at_points": sum(strike.point != RANDOM for strike in on_workers),
        "kills_at_random": sum(strike.point == RANDOM and strike.ready > 0 for strike in on_workers),
        "kills_of_a_starting_worker": sum(not strike.ready for strike in on_workers),
        "processes_killed": dict(result.struck),
        "server_restarts": len(on_server),
        "server_restarts_at_random": sum(strike.point == RANDOM for strike in on_server),
        "effects": sum(verdict.effects.taken for verdict in verdicts),
        "decisions": sum(verdict.decisions for verdict in verdicts),
        "lost_incidents": sum(len(verdict.lost) for verdict in verdicts) + len(result.left_running),
        "doubled_effects": sum(len(verdict.effects.doubled) for verdict in verdicts),
        "stray_effects": sum(len(verdict.effects.stray) for verdict in verdicts),
        "lost_decisions": sum(len(verdict.lost_decisions) for verdict in verdicts),
        "falsely_resolved": sum(len(verdict.falsely_resolved) for verdict in verdicts),
        "unknown": len(unknown),
        "unknown_not_shown": sum(one.shown is None for one in unknown),
        "broken": sum(len(verdict.broken) for verdict in verdicts),
        "agents_planned": sum(verdict.agents.planned for verdict in verdicts),
        "agents_acknowledged": sum(verdict.agents.acknowledged for verdict in verdicts),
        "agents_unfinished_ran_again": sum(verdict.agents.again for verdict in verdicts),
        "agents_acknowledged_ran_again": sum(len(verdict.agents.wasted) for verdict in verdicts),
        "histories_replayed": sum(fought.replayed for fought in result.fought),
        "ledger_rows_verified": result.ledger_rows,
        "naive_remedy_doubled": None if control is None else len(control.verdict.effects.doubled),
        "ended_by_themselves": len(result.deaths),
        "worker_start_s": _spread(result.worker_start_s),
        "server_start_s": _spread(result.server_start_s),
        "waited_for_an_attempt_s": {step: _spread(seconds) for step, seconds in sorted(_waits(result).items())},
        "incident_s": _spread([fought.seconds for fought in result.fought if fought.seconds is not None]),
        "seconds": round(result.seconds, 1),
        "load": [round(value, 1) for value in result.load],
    }


def document(result: Result) -> dict[str, Any]:
    """Everything as one JSON object: the figures, each incident, and what was wrong."""
    incidents = [
        {
            "incident_id": fought.incident_id,
            "scenario": fought.plan.scenario,
            "seed": fought.plan.seed,
            "ending": fought.verdict.ending,
            "why": fought.verdict.why,
            "seconds": None if fought.seconds is None else round(fought.seconds, 1),
            "strikes": [strike.__dict__ for strike in fought.strikes],
            "faults": fought.verdict.faults(),
        }
        for fought in (*result.fought, *([result.control] if result.control else []))
    ]
    return {**figures(result), "faults": result.faults(), "deaths": result.deaths, "incidents_fought": incidents}


def table(result: Result) -> str:
    """The points and the figures as lines."""
    strikes = [strike for fought in result.fought for strike in fought.strikes if strike.hit]
    lines = [f"{'killed at':44} {'who':12} {'hits':>4}  effects on the estate by then"]
    for name in (*(point.name for point in POINTS), RANDOM):
        if hits := [strike for strike in strikes if strike.point == name]:
            victim = "" if name == RANDOM else hits[0].victim
            lines.append(f"{name:44} {victim:12} {len(hits):4}  {'' if name == RANDOM else _effects(hits)}")
    lines.append("")
    lines += [f"{name.replace('_', ' '):44} {_shown(value)}" for name, value in figures(result).items()]
    lines += ["", *(f"WRONG  {fault}" for fault in result.faults())]
    lines.append("every zero is zero" if not result.faults() else f"{len(result.faults())} things are wrong")
    return "\n".join(lines)


def _waits(result: Result) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for fought in result.fought:
        for step, seconds in fought.waits.items():
            found.setdefault(step, []).extend(seconds)
    return found


def _effects(hits: list[Strike]) -> str:
    found = Counter((hit.written, hit.ended) for hit in hits)
    return ", ".join(f"{written} flags {ended} backends ×{times}" for (written, ended), times in sorted(found.items()))


def _spread(seconds: list[float]) -> list[float]:
    return [round(median(seconds), 2), round(max(seconds), 2)] if seconds else []


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "–"
    if isinstance(value, list):
        return " / ".join(str(one) for one in value) or "–"
    return str(value)
