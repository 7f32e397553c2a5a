"""READ access: one approved request opens telemetry and probes for a while. It never opens a write."""

import asyncio
import re
from collections.abc import Collection

from pydantic import SecretStr

from oncall.access.broker import (
    Authority,
    Clock,
    Refusals,
    check,
    check_brakes,
    check_open,
    check_row,
    check_signed,
    utc_now,
)
from oncall.access.connect import Vault
from oncall.access.ledger import EntryKind, Ledger
from oncall.access.references import Reference
from oncall.model.access import AccessKind, AccessRequest, Approvers, Decision, Grant
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.policy import Policy
from oncall.trust.requests import grant_id, parse_request, request_digest

REMEMBERED = 1024
"""Grants and incidents of which a broker remembers that no brake was on."""

_ANY_REGION = re.escape("{region}")


class ReadBroker:
    """Opens grants and releases their secrets to the agents of this worker process.

    The ledger knows which grants exist, so that any worker that shares it can serve them, once it has verified the
    signatures in the grant's row: a row proves nothing by being there. A grant lives on under a changed policy as long
    as that still says approve to reading. `references` is the read set
    that this worker is configured with: nothing outside it is ever opened. In it, a part written `{region}` stands for
    any one part, for the regions are known only once telemetry is read.
    """

    def __init__(
        self,
        vault: Vault,
        ledger: Ledger,
        approvers: Approvers,
        policy: Policy,
        references: Collection[str],
        clock: Clock = utc_now,
    ) -> None:
        self._vault = vault
        self._ledger = ledger
        self._authority = Authority(approvers, policy, ledger.ledger_id)
        self._read_set = tuple(re.compile(re.escape(name).replace(_ANY_REGION, "[^/]+")) for name in references)
        self._clock = clock
        self._grants: dict[str, AccessRequest] = {}
        self._released: set[tuple[str, str]] = set()
        # Apart, so that a flood of bad requests leaves room for what is refused under a good one.
        self._refused_requests, self._refused_reveals = Refusals(ledger), Refusals(ledger)
        self._recording = asyncio.Lock()
        self._head_checked: dict[tuple[str, str | None], int] = {}

    def take_secret_requests(self) -> int:
        """HTTP requests to the vault since this was last called, so that the shares of concurrent agents add up."""
        return self._vault.take_requests()

    async def open_grant(self, request_text: str, decisions: tuple[Decision, ...]) -> Grant:
        """The grant that these signatures open; asking again with the same request gives the same one.

        Raises what `check` and `check_open` raise, Terminal(GRANT_SCOPE) for references outside this worker's read
        set, and for references that do not resolve what `Vault.resolve` raises, naming all that are missing. Every
        Terminal is recorded in the ledger as a refusal, once.
        """
        try:
            return await self._open(request_text, decisions)
        except Terminal as refusal:
            await asyncio.to_thread(self._refused_requests.of_text, request_text, refusal, "open a read grant")
            raise

    async def check_open(self, grant_digest: str, purpose: str, incident_id: str | None = None) -> None:
        """Returns while the grant opened by the request `grant_digest` is open; `purpose` says what for, in the ledger.

        For reading that needs no secret. Raises Terminal, as `reveal` does and recorded like it: GRANT_UNKNOWN,
        GRANT_EXPIRED, GRANT_REVOKED, HALTED, and what `check` raises when the grant's signatures do not hold.
        """
        try:
            self._check_still_open(grant_digest, self._granted(grant_digest), incident_id)
        except Terminal as refusal:
            await self._refuse(grant_digest, purpose, refusal)
            raise

    async def reveal(self, grant_digest: str, reference: str, holder: str, incident_id: str | None = None) -> SecretStr:
        """The secret behind `reference`, under the grant opened by the request `grant_digest`, for `holder` to use.

        `incident_id` is the incident that uses a shift's grant: a halt of that one alone stops it as well. Expiry and
        revocation are checked every time; the ledger has one release per grant, reference and process, written before
        the secret is looked up. Raises Terminal: GRANT_UNKNOWN, GRANT_SCOPE, GRANT_EXPIRED, GRANT_REVOKED, HALTED, what
        `check` raises when the grant's signatures do not hold, and what `Vault.resolve` raises.
        """
        try:
            request = self._granted(grant_digest)
            if reference not in request.references or not self._in_read_set(reference):
                raise Terminal(ErrorCode.GRANT_SCOPE, f"{reference[:200]!r} is not part of the grant")
            self._check_still_open(grant_digest, request, incident_id)
        except Terminal as refusal:
            await self._refuse(grant_digest, f"reveal to {holder[:200]}", refusal, reference)
            raise
        await self._record_release(grant_digest, reference, holder)
        secret = await self._vault.resolve(Reference.parse(reference))
        # The lookup can take seconds: what ended meanwhile must not be handed out.
        try:
            self._check_still_open(grant_digest, request, incident_id)
        except Terminal as refusal:
            await self._refuse(grant_digest, f"reveal to {holder[:200]}", refusal, reference)
            raise
        return secret

    async def _open(self, text: str, decisions: tuple[Decision, ...]) -> Grant:
        digest = request_digest(parse_request(text))
        existing = await asyncio.to_thread(self._ledger.find, EntryKind.GRANT, digest)
        if existing is not None:
            check_signed(text, decisions, AccessKind.READ, self._authority, self._clock())
            request = self._granted(digest)
            check_open(self._ledger, digest, request, self._clock())
            return _grant(digest, request)
        approved = check(text, decisions, AccessKind.READ, self._authority, self._clock())
        check_brakes(self._ledger, digest, approved.request.incident_id)
        outside = [name for name in approved.request.references if not self._in_read_set(name)]
        if outside:
            raise Terminal(
                ErrorCode.GRANT_SCOPE, "not in this worker's read set: " + ", ".join(name[:200] for name in outside[:5])
            )
        await self._resolve_all(approved.request.references)
        await asyncio.to_thread(self._ledger.append_once, EntryKind.GRANT, digest, approved.row())
        return _grant(digest, approved.request)

    def _in_read_set(self, reference: str) -> bool:
        return any(allowed.fullmatch(reference) for allowed in self._read_set)

    async def _resolve_all(self, references: tuple[str, ...]) -> None:
        parsed = [Reference.parse(reference) for reference in references]
        results = await asyncio.gather(*(self._vault.resolve(one) for one in parsed), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        missing: list[Terminal] = []
        for failure in failures:
            if isinstance(failure, Terminal) and failure.code in (ErrorCode.ITEM_MISSING, ErrorCode.FIELD_MISSING):
                missing.append(failure)
            else:
                raise failure
        if missing:
            shown = "; ".join(failure.message for failure in missing[:5])
            more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise Terminal(missing[0].code, f"{len(missing)} of {len(references)} do not resolve: {shown}{more}")

    def _granted(self, digest: str) -> AccessRequest:
        request = self._grants.get(digest)
        if request is None:
            entry = self._ledger.find(EntryKind.GRANT, digest)
            if entry is None:
                raise Terminal(ErrorCode.GRANT_UNKNOWN, f"the ledger has no grant {digest[:100]!r}")
            request = check_row(entry, AccessKind.READ, self._authority, self._clock())
            # A grant's row never changes; only what may end it is asked again.
            self._grants[digest] = request
        return request

    def _check_still_open(self, digest: str, request: AccessRequest, incident_id: str | None) -> None:
        now = self._clock()
        if not request.not_before <= now < request.grant_expires_at:
            check_open(self._ledger, digest, request, now)
            return
        # Brakes are rows: as long as the ledger has no new row, none was pulled since the last look.
        head = self._ledger.head()
        if self._head_checked.get((digest, incident_id)) == head:
            return
        check_open(self._ledger, digest, request, now)
        if incident_id is not None:
            check_brakes(self._ledger, digest, incident_id)
        if len(self._head_checked) >= REMEMBERED:
            # Incident ids come from workflow input: whoever makes them up must not fill the memory.
            self._head_checked.clear()
        self._head_checked[digest, incident_id] = head

    async def _record_release(self, digest: str, reference: str, holder: str) -> None:
        key = (digest, reference)
        if key in self._released:
            return
        async with self._recording:
            if key in self._released:
                return
            body = {"reference": reference, "holder": holder}
            await asyncio.to_thread(self._ledger.append, EntryKind.RELEASE, digest, body)
            self._released.add(key)

    async def _refuse(self, digest: str, what: str, refusal: Terminal, reference: str = "") -> None:
        if refusal.code in (ErrorCode.GRANT_EXPIRED, ErrorCode.GRANT_REVOKED):
            request = self._grants.get(digest)
            for ended in request.references if request is not None else ():
                self._vault.forget(Reference.parse(ended))
        await asyncio.to_thread(self._refused_reveals.of_digest, digest, refusal, what[:300], reference)


def _grant(digest: str, request: AccessRequest) -> Grant:
    return Grant(
        grant_id=grant_id(digest),
        request_digest=digest,
        kind=AccessKind.READ,
        references=request.references,
        holder=f"spiffe://{request.tenant}/incident/{request.incident_id}",
        not_before=request.not_before,
        expires_at=request.grant_expires_at,
    )
