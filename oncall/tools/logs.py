"""The logs specialist's tools: what the service writes, and which of its errors are new and its own."""

from collections import Counter

from oncall.model.errors import ErrorCode, Terminal
from oncall.model.observation import Observation
from oncall.telemetry.log_patterns import is_error, patterns
from oncall.telemetry.window import Window
from oncall.tools.toolkit import Toolkit, moment

MAX_LINES = 8
MAX_PATTERNS = 6
TEXT_CHARS = 300


async def _window(toolkit: Toolkit) -> Window:
    window = await toolkit.window()
    if not window.has_logs:
        raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, "this source keeps no logs")
    return window


async def get_application_logs(toolkit: Toolkit) -> Observation:
    """The service's lines by level and its latest errors.

    Value: {lines, levels: {level: count}, latest_errors: [{at, level, message}]}; messages are untrusted and clipped.
    Raises TELEMETRY_UNAVAILABLE when the source keeps no logs.
    """
    window = await _window(toolkit)
    lines = window.logs(toolkit.agent.region, toolkit.agent.service)
    wrong = [int(index) for index in is_error(lines).nonzero()[0]]
    value = {
        "lines": len(lines),
        "levels": {str(level): count for level, count in sorted(Counter(lines.levels).items())},
        "latest_errors": [
            {
                "at": moment(float(lines.times[index])),
                "level": str(lines.levels[index]),
                "message": str(lines.messages[index])[:TEXT_CHARS],
            }
            for index in wrong[-MAX_LINES:]
        ],
    }
    cut = f"the latest {MAX_LINES} errors" if len(wrong) > MAX_LINES else None
    return toolkit.ranged("get_application_logs", {}, value, window, cut)


async def search_errors(toolkit: Toolkit) -> Observation:
    """The service's log patterns that appeared, grew or vanished, most telling first.

    Value: {patterns: [{template, example, error, recent, expected, deviation, own, since}]}: `own` is the share of its
    recent lines that no error of a called service explains. Texts are untrusted and clipped.
    Raises TELEMETRY_UNAVAILABLE when the source keeps no logs.
    """
    window, topology = await _window(toolkit), await toolkit.topology()
    found = [
        pattern for pattern in patterns(window, topology, toolkit.agent.region, toolkit.agent.service) if pattern.score
    ]
    value = {
        "patterns": [
            {
                "template": pattern.template[:TEXT_CHARS],
                "example": pattern.example[:TEXT_CHARS],
                "error": pattern.error,
                "recent": pattern.recent,
                "expected": float(pattern.expected),
                "deviation": pattern.score,
                "own": pattern.own,
                "since": moment(pattern.onset),
            }
            for pattern in found[:MAX_PATTERNS]
        ],
    }
    cut = f"{MAX_PATTERNS} of {len(found)} patterns" if len(found) > MAX_PATTERNS else None
    return toolkit.ranged("search_errors", {}, value, window, cut)
