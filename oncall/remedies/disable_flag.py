"""Turns one feature flag off in one region, and waits until its clients have seen it.

The wait is the point. A client that still holds the old version keeps sending what the flag lets through, and killing
its queries meanwhile only makes room for new ones (measured: relapse within 3 s).
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from oncall.model.action import DisableFlag
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.remedies.flag_api import Ambiguous, Conflict, FlagApi, FlagState, open_flag
from oncall.remedies.remedy import Applied, Effect, Proof, Reading, Remedy, Session

CLIENTS_TIMEOUT_S = 10.0
READ_BACK_TIMEOUT_S = 8.0
POLL_S = 0.2
WRITES = 3


class DisableFlagRemedy(Remedy[DisableFlag]):
    """`reference` is the vault item with the fields `credential` and `server`; timeouts are seconds.

    Rolled back only on harm: clients polled before, and none has polled for 5 s when the wait is over, so switching
    the flag seems to have taken its readers down. A flag that is off but not yet seen everywhere stays off: putting
    it on again would bring the outage back to those that have recovered.
    """

    repeatable = True

    def __init__(
        self,
        reference: str,
        clients_timeout_s: float = CLIENTS_TIMEOUT_S,
        read_back_timeout_s: float = READ_BACK_TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._clients_timeout_s = clients_timeout_s
        self._read_back_timeout_s = read_back_timeout_s

    async def precheck(self, parameters: DisableFlag, session: Session) -> Reading:
        """The flag's state; refused unless it is on at the expected version, or off by this very request."""
        async with await self._open(parameters, session) as api:
            state = await api.get()
        if not _ours(state, parameters, session) and not _expected(state, parameters):
            raise _changed(state, parameters)
        return Reading(values=_values(state))

    async def read_back(self, parameters: DisableFlag, session: Session, before: Reading) -> Effect | None:
        """The flag off, written under this request's digest."""
        async with await self._open(parameters, session) as api:
            state = await api.get()
        return _effect(state) if _ours(state, parameters, session) else None

    async def apply(self, parameters: DisableFlag, session: Session, before: Reading) -> Effect:
        """Compare-and-set at the expected version. A lost answer is read back, and the write repeated if need be.

        Repeating is harmless: the service knows the digest as idempotency key, and the version moves with a write.
        """
        async with await self._open(parameters, session) as api:
            all_answered = True
            for attempt in range(WRITES):
                try:
                    return _effect(await api.put(False, parameters.expected_version, session.digest, session.digest))
                except (Retryable, Terminal):
                    if attempt == 0:
                        raise
                except Ambiguous as ambiguous:
                    all_answered = all_answered and ambiguous.answered
                except Conflict:
                    if attempt == 0:
                        return await self._after_conflict(api, parameters, session)
                state = await self._read(api)
                if state is None:
                    return _unknown("the write's answer was lost and the flag cannot be read back")
                if _ours(state, parameters, session):
                    return _effect(state)
                if not _expected(state, parameters):
                    return _unknown(f"the flag is at version {state.version} by somebody else after a lost answer")
            if all_answered:
                return Effect(
                    applied=Applied.NO, detail=f"the flag service failed {WRITES} times; the flag is still on"
                )
            return _unknown(f"{WRITES} writes without an answer; the flag is still on, but one may yet arrive")

    async def _after_conflict(self, api: FlagApi, parameters: DisableFlag, session: Session) -> Effect:
        """Somebody wrote before us: an earlier attempt of this request whose key the service forgot, or another."""
        state = await self._read(api)
        if state is None:
            return _unknown("the flag service reported a conflict and cannot be read any more")
        if _ours(state, parameters, session):
            return _effect(state)
        raise _changed(state, parameters)

    async def verify(self, parameters: DisableFlag, session: Session, before: Reading, effect: Effect) -> Proof:
        """Verified when the flag reads off and each client of the last 5 s holds the new version (at least one).

        Raises Retryable when the service could not be read at all within the wait.
        """
        started = time.monotonic()
        proof: Proof | None = None
        async with await self._open(parameters, session) as api:
            while True:
                late = time.monotonic() - started >= self._clients_timeout_s
                try:
                    state = await api.get()
                except Retryable:
                    if not late:
                        await asyncio.sleep(POLL_S)
                        continue
                    if proof is None:
                        raise
                    return proof
                if state.enabled and state.updated_by == _rollback_key(session):
                    # An attempt before this one got as far as undoing it; `rollback` then only confirms.
                    return Proof(verified=False, values=_values(state), detail="rolled back already", harm=True)
                if state.enabled or state.version <= parameters.expected_version:
                    again = f"the flag reads on at version {state.version}: somebody changed it again"
                    return Proof(verified=False, values=_values(state), detail=again)
                proof = _seen(state, effect, time.monotonic() - started)
                if proof.verified:
                    return proof
                if late:
                    vanished = before.values.get("clients", 0) > 0 and not state.recent()
                    return proof.model_copy(update={"harm": vanished})
                await asyncio.sleep(POLL_S)

    async def rollback(self, parameters: DisableFlag, session: Session, effect: Effect) -> bool:
        """Turns the flag on again at the version this request wrote; false when somebody has changed it since."""
        version = effect.values.get("version")
        if not isinstance(version, int):
            return False
        key = _rollback_key(session)
        async with await self._open(parameters, session) as api:
            try:
                state: FlagState | None = await api.put(True, version, key, key)
            except Conflict:
                return False
            except (Ambiguous, Retryable):
                state = await self._read(api)
        return state is not None and state.enabled and state.updated_by == key

    async def _open(self, parameters: DisableFlag, session: Session) -> AbstractAsyncContextManager[FlagApi]:
        server = await session.reveal(f"{self._reference}/server")
        credential = await session.reveal(f"{self._reference}/credential")
        return open_flag(server, credential, parameters.flag, parameters.region)

    async def _read(self, api: FlagApi) -> FlagState | None:
        """The state, or None when the service could not be read in time (or not with this credential)."""
        deadline = time.monotonic() + self._read_back_timeout_s
        while True:
            try:
                return await api.get()
            except Terminal:
                return None
            except Retryable:
                if time.monotonic() >= deadline:
                    return None
            await asyncio.sleep(POLL_S)


def _rollback_key(session: Session) -> str:
    return f"{session.digest}:rollback"


def _expected(state: FlagState, parameters: DisableFlag) -> bool:
    return state.enabled and state.version == parameters.expected_version


def _ours(state: FlagState, parameters: DisableFlag, session: Session) -> bool:
    return not state.enabled and state.updated_by == session.digest and state.version > parameters.expected_version


def _changed(state: FlagState, parameters: DisableFlag) -> Terminal:
    return Terminal(
        ErrorCode.TARGET_CHANGED,
        f"the flag is {'on' if state.enabled else 'off'} at version {state.version}; approved was turning it off at "
        f"version {parameters.expected_version}",
    )


def _values(state: FlagState) -> dict[str, Any]:
    return {
        "enabled": state.enabled,
        "version": state.version,
        "updated_at": _text(state.updated_at, 64),
        "updated_by": _text(state.updated_by, 200),
        "clients": len(state.recent()),
    }


def _text(untrusted: str, length: int) -> str:
    """What may be kept of the service's own words: they go into history, the ledger and a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in untrusted[:length])


def _effect(state: FlagState) -> Effect:
    return Effect(
        applied=Applied.YES, values={"enabled": state.enabled, "version": state.version, "replayed": state.replayed}
    )


def _unknown(detail: str) -> Effect:
    return Effect(applied=Applied.UNKNOWN, detail=detail)


def _seen(state: FlagState, effect: Effect, waited_s: float) -> Proof:
    wanted = effect.values.get("version", state.version)
    recent = state.recent()
    current = sum(1 for client in recent if client.version >= wanted)
    values = {**_values(state), "clients_current": current, "waited_s": round(waited_s, 3)}
    if not recent:
        return Proof(verified=False, values=values, detail="the flag is off, but no client has polled within 5 s")
    if current < len(recent):
        behind = len(recent) - current
        detail = f"the flag is off, but {behind} of {len(recent)} clients still hold an older version"
        return Proof(verified=False, values=values, detail=detail)
    return Proof(verified=True, values=values, detail=f"off at version {state.version}, seen by all {current} clients")
