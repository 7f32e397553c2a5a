"""The closed set of failures that may cross a boundary.

Two kinds only: one that the engine may retry (after the delay the other side asked for) and one that it must not.
The code is what programs act on; the message is for people and never carries a secret.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, in words that are safe in plaintext history."""

    BAD_CONFIG = "bad_config"
    BAD_REFERENCE = "bad_reference"
    VAULT_UNREACHABLE = "vault_unreachable"
    VAULT_REFUSED = "vault_refused"
    ITEM_MISSING = "item_missing"
    FIELD_MISSING = "field_missing"
    GRANT_UNKNOWN = "grant_unknown"
    GRANT_EXPIRED = "grant_expired"
    GRANT_REVOKED = "grant_revoked"
    GRANT_SCOPE = "grant_scope"
    HALTED = "halted"
    SIGNATURE_REFUSED = "signature_refused"
    NOT_AN_APPROVER = "not_an_approver"
    REQUEST_MISMATCH = "request_mismatch"
    REQUEST_EXPIRED = "request_expired"
    POLICY_FORBIDS = "policy_forbids"
    ALREADY_USED = "already_used"
    LEDGER_FOREIGN = "ledger_foreign"
    LEDGER_BROKEN = "ledger_broken"
    BLOB_MISSING = "blob_missing"
    BLOB_CORRUPT = "blob_corrupt"
    TELEMETRY_UNAVAILABLE = "telemetry_unavailable"
    PROBE_FAILED = "probe_failed"
    TARGET_CHANGED = "target_changed"
    TARGET_UNREACHABLE = "target_unreachable"
    TARGET_REFUSED = "target_refused"
    TEMPORAL_UNREACHABLE = "temporal_unreachable"
    NOT_FOUND = "not_found"
    DISK_FULL = "disk_full"
    INTERNAL = "internal"


class OncallError(Exception):
    """A failure with a code. Raise one of the two subclasses."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Terminal(OncallError):
    """Trying again cannot help: the engine must not retry."""


class Retryable(OncallError):
    """Trying again may help, after `retry_after_s` seconds where the other side named a delay."""

    def __init__(self, code: ErrorCode, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s
