"""What exactly is signed: the canonical bytes of requests, decisions, orders and openings, and their digests."""

from pydantic import ValidationError

from oncall.model.access import AbortOrder, AccessRequest, Decision
from oncall.model.action import Parameters, Target
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.opening import Opening
from oncall.model.policy import Policy
from oncall.model.shift import ShiftOpening, StopOrder
from oncall.trust.canonical import canonical, digest

MAX_REQUEST_BYTES = 64 * 1024

_DOMAIN_REQUEST = "oncall.access-request/1"
_DOMAIN_ACTION = "oncall.action/1"
_DOMAIN_POLICY = "oncall.policy/1"


def request_text(request: AccessRequest) -> str:
    """The canonical JSON of a request: the only text that its digest accepts."""
    return canonical(request).decode()


def request_digest(request: AccessRequest) -> str:
    """`sha256:<hex>` of a request: what a human signs, and the ledger's single-use key."""
    return digest(_DOMAIN_REQUEST, request)


def parse_request(text: str) -> AccessRequest:
    """The request that `text` says, if `text` is exactly its canonical JSON.

    Anything looser would let two texts share a digest: what a person read and what a broker enforces must be the same
    bytes. Raises Terminal(REQUEST_MISMATCH).
    """
    if len(text) > MAX_REQUEST_BYTES:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, f"the request is longer than {MAX_REQUEST_BYTES} characters")
    try:
        request = AccessRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole)"
        raise Terminal(ErrorCode.REQUEST_MISMATCH, f"the request is not valid: {field}: {first['msg']}") from None
    for name in ("not_before", "answer_by", "grant_expires_at"):
        if getattr(request, name).utcoffset() is None:
            raise Terminal(ErrorCode.REQUEST_MISMATCH, f"the request's {name} has no time zone")
    if request_text(request) != text:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request is not in canonical form, so its digest is not its own")
    return request


def request_id(request_digest: str) -> str:
    """`req-<12 hex>`: what people type. Only the full digest identifies a request."""
    return "req-" + request_digest.removeprefix("sha256:")[:12]


def grant_id(request_digest: str) -> str:
    """`grant-<12 hex>` of the request that opened the grant."""
    return "grant-" + request_digest.removeprefix("sha256:")[:12]


def action_digest(parameters: Parameters, target: Target) -> str:
    """`sha256:<hex>` naming an effect by type, parameters and target only, for locks, cooldowns and read-back."""
    fields = parameters.model_dump(mode="json")
    return digest(
        _DOMAIN_ACTION,
        {"type": fields.pop("type"), "parameters": fields, "target": target.model_dump(mode="json")},
    )


def decision_bytes(decision: Decision) -> bytes:
    """What a decision's signature is over: the canonical JSON of every field but the signature."""
    return canonical(decision.model_dump(mode="json", exclude={"signature"}))


def opening_bytes(opening: Opening) -> bytes:
    """What an opening's signature is over: the canonical JSON of every field but the signature."""
    return canonical(opening.model_dump(mode="json", exclude={"signature"}))


def abort_bytes(order: AbortOrder) -> bytes:
    """What an abort order's signature is over: the canonical JSON of every field but the signature."""
    return canonical(order.model_dump(mode="json", exclude={"signature"}))


def shift_bytes(opening: ShiftOpening) -> bytes:
    """What a shift opening's signature is over: the canonical JSON of every field but the signature."""
    return canonical(opening.model_dump(mode="json", exclude={"signature"}))


def stop_bytes(order: StopOrder) -> bytes:
    """What a stop order's signature is over: the canonical JSON of every field but the signature."""
    return canonical(order.model_dump(mode="json", exclude={"signature"}))


def policy_digest(policy: Policy) -> str:
    """`sha256:<hex>` of a policy, part of every request."""
    return digest(_DOMAIN_POLICY, policy)
