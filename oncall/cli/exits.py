"""Exit codes, and which failure means which."""

from oncall.model.errors import ErrorCode

DONE = 0
ANSWER_IS_NO = 1
USAGE = 2
UNREACHABLE = 3

_USAGE = {
    ErrorCode.BAD_CONFIG,
    ErrorCode.BAD_REFERENCE,
    ErrorCode.NOT_FOUND,
}
_UNREACHABLE = {
    ErrorCode.TEMPORAL_UNREACHABLE,
    ErrorCode.VAULT_UNREACHABLE,
    ErrorCode.TARGET_UNREACHABLE,
    ErrorCode.TELEMETRY_UNAVAILABLE,
}


def exit_code(code: ErrorCode) -> int:
    """2 for what the caller must change, 3 for a service that is down, 1 for every other failure."""
    if code in _USAGE:
        return USAGE
    return UNREACHABLE if code in _UNREACHABLE else ANSWER_IS_NO
