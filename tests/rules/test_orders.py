"""Contract: only an approver's fresh signature, made for this purpose and this shift's run, ends a shift or says who
went on call. Whatever is wrong changes nothing, and the refusal says what."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall.cli import sshkeys
from oncall.model.access import NAMESPACE_ABORT, NAMESPACE_DECISION, NAMESPACE_SHIFT, NAMESPACE_STOP, Approvers
from oncall.model.shift import ShiftOpening, StopOrder
from oncall.rules import orders
from oncall.trust import requests
from tests.people import Person, approvers
from tests.workflows.scripted import shift_opening

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHIFT, RUN = "shift-payments", "run-1"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, Person]:
    """An approver, and a stranger who is on nobody's list."""
    folder = tmp_path_factory.mktemp("people")
    return Person.create(folder, "alice"), Person.create(folder, "mallory")


def order(person: Person, namespace: str = NAMESPACE_STOP, **changes: object) -> StopOrder:
    fields: dict[str, object] = {"shift_id": SHIFT, "run_id": RUN, "reason": "enough", "ordered_at": NOW}
    unsigned = StopOrder.model_validate({**fields, **changes})
    signature = sshkeys.sign_in_process(person.key, requests.stop_bytes(unsigned), namespace)
    return unsigned.model_copy(update={"signature": signature})


def opening(person: Person, namespace: str = NAMESPACE_SHIFT, **changes: object) -> ShiftOpening:
    unsigned = shift_opening("payments", **{"opened_at": NOW, **changes})
    signature = sshkeys.sign_in_process(person.key, requests.shift_bytes(unsigned), namespace)
    return unsigned.model_copy(update={"signature": signature})


def requester(signed: ShiftOpening, allowed: Approvers, now: datetime = NOW, workflow_id: str = SHIFT) -> str | None:
    return orders.shift_requester(signed, workflow_id, now, allowed)


def stop(signed: StopOrder, allowed: Approvers, now: datetime = NOW) -> orders.Verdict:
    return orders.stop(signed, SHIFT, RUN, now, allowed)


def test_an_approvers_order_ends_the_shift_and_says_who_and_why(people: tuple[Person, Person]) -> None:
    alice, _ = people
    assert stop(order(alice), approvers(alice)) == orders.Verdict(True, "ended by alice: enough")


def test_a_signature_for_another_purpose_or_by_a_stranger_ends_nothing(people: tuple[Person, Person]) -> None:
    alice, mallory = people
    for namespace in (NAMESPACE_ABORT, NAMESPACE_DECISION, NAMESPACE_SHIFT):
        verdict = stop(order(alice, namespace), approvers(alice))
        assert not verdict.honoured
        assert "another purpose" in verdict.note
    verdict = stop(order(mallory), approvers(alice))
    assert not verdict.honoured
    assert "is not in the list of allowed signers" in verdict.note
    assert not stop(order(alice).model_copy(update={"signature": ""}), approvers(alice)).honoured


def test_an_order_that_was_changed_after_it_was_signed_ends_nothing(people: tuple[Person, Person]) -> None:
    alice, _ = people
    signed = order(alice, run_id="run-0", shift_id="shift-search")
    changed = signed.model_copy(update={"run_id": RUN, "shift_id": SHIFT})
    assert stop(changed, approvers(alice)).note.endswith("it is not over these bytes")
    assert not stop(order(alice).model_copy(update={"reason": "something else"}), approvers(alice)).honoured


def test_an_order_for_another_shift_or_an_earlier_one_of_the_team_ends_nothing(people: tuple[Person, Person]) -> None:
    alice, _ = people
    for changes in ({"shift_id": "shift-search"}, {"run_id": "run-0"}):
        verdict = stop(order(alice, **changes), approvers(alice))
        assert verdict == orders.Verdict(False, "it names another shift")


@given(st.timedeltas(timedelta(days=-2), timedelta(days=2)))
def test_an_order_counts_only_while_it_is_fresh(people: tuple[Person, Person], late: timedelta) -> None:
    alice, _ = people
    verdict = stop(order(alice), approvers(alice), NOW + late)
    assert verdict.honoured == (abs(late) <= orders.FRESH)
    assert verdict.honoured or "not now" in verdict.note


def test_an_order_with_a_time_of_no_zone_ends_nothing(people: tuple[Person, Person]) -> None:
    alice, _ = people
    verdict = stop(order(alice, ordered_at=NOW.replace(tzinfo=None)), approvers(alice))
    assert verdict == orders.Verdict(False, "it was signed at 2026-01-02T12:00:00, not now")


def test_a_very_long_reason_is_cut(people: tuple[Person, Person]) -> None:
    alice, _ = people
    assert len(stop(order(alice, reason="x" * 5000), approvers(alice)).note) < 300


def test_who_went_on_call_is_whose_signature_it_is(people: tuple[Person, Person]) -> None:
    alice, mallory = people
    assert requester(opening(alice), approvers(alice)) == "alice"
    assert requester(opening(mallory), approvers(alice)) is None
    assert requester(opening(alice, NAMESPACE_STOP), approvers(alice)) is None
    assert requester(shift_opening("payments", opened_at=NOW), approvers(alice)) is None
    longer = opening(alice).model_copy(update={"grant_s": 12 * 3600})
    assert requester(longer, approvers(alice)) is None


@given(st.timedeltas(timedelta(days=-2), timedelta(days=2)))
def test_an_opening_sent_again_later_is_nobodys(people: tuple[Person, Person], late: timedelta) -> None:
    alice, _ = people
    found = requester(opening(alice), approvers(alice), NOW + late)
    assert found == ("alice" if abs(late) <= orders.FRESH else None)


def test_an_opening_is_for_its_own_team(people: tuple[Person, Person]) -> None:
    alice, _ = people
    assert requester(opening(alice), approvers(alice), workflow_id="shift-search") is None
    renamed = opening(alice).model_copy(update={"shift_id": "shift-search"})
    assert requester(renamed, approvers(alice), workflow_id="shift-search") is None
    naive = opening(alice, opened_at=NOW.replace(tzinfo=None))
    assert requester(naive, approvers(alice)) is None
