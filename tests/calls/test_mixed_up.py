"""Vapi tells of a call by another id than it answered its create with: what is said in it is kept, and nobody is taken for another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from bridge.errors import VapiUnavailable
from calls import erasure, inbox, intake, sessions, vapi_events
from calls.models import CallSession, InboxMessage, TranscriptLine, VapiSession, VapiState
from tests.builders import FakeVapi, a_call, session_of, vapi_call

pytestmark = pytest.mark.django_db(transaction=True)


def created(call: CallSession, told: str) -> VapiSession:
    """The call's session, by the answer that Vapi gave."""
    assert sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi(answers=vapi_call(told)))
    return session_of(call)


def tells(call: CallSession, real: str, *bodies: dict[str, Any], claim: object = None) -> None:
    """What the Vapi call of this id tells, by the name we gave it and the claim it was made with (that of the row if none is given)."""
    shown = str(session_of(call).claim) if claim is None else str(claim)
    metadata = {"call_sid": call.call_sid, "epoch": 0, "n": 0, "claim": shown}
    of = {"id": real, "name": f"{call.call_sid}.0", "assistantOverrides": {"metadata": metadata}}
    for body in bodies:
        intake.take_all([vapi_events.read(json.dumps({"message": {**body, "call": of}}).encode())])


def final(words: str) -> dict[str, Any]:
    return {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": words, "timestamp": 1_790_000_000_000}


OVER = {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call", "timestamp": 1_790_000_040_000}


def said(call: CallSession) -> list[str]:
    return list(TranscriptLine.objects.filter(call=call, role="user").values_list("said", flat=True))


def stands(call: CallSession) -> tuple[str | None, str]:
    session = session_of(call)
    return session.vapi_call_id, session.state


def test_every_create_shows_a_claim_of_its_own_that_the_row_has() -> None:
    vapi, call, other = FakeVapi(), a_call(), a_call()
    for each in (call, other):
        sessions.start_conversation(vapi_session_pk=session_of(each).pk, by="worker", client=vapi)
    shown = [request["assistantOverrides"]["metadata"]["claim"] for request in vapi.created]
    assert shown == [str(session_of(call).claim), str(session_of(other).claim)]
    assert len(set(shown)) == 2


def test_a_call_that_has_another_id_than_we_were_told_is_known_by_the_claim_of_its_create() -> None:
    call = a_call()
    created(call, "nobodys")
    tells(call, "its-own", final("Hello?"))
    assert said(call) == ["Hello?"]
    assert stands(call) == ("its-own", VapiState.LIVE)
    tells(call, "its-own", OVER)
    assert stands(call) == ("its-own", VapiState.ENDED)


def test_what_a_call_tells_after_our_side_has_ended_it_is_kept_too() -> None:
    call = a_call()
    sessions.end_session(pk=created(call, "nobodys").pk, client=FakeVapi(), at=timezone.now())
    tells(call, "its-own", final("Hello?"))
    assert (said(call), stands(call)) == (["Hello?"], ("its-own", VapiState.ENDED))


def test_a_call_that_was_given_up_is_not_taken_for_the_one_of_its_name_that_took_its_place() -> None:
    """P9: whoever made the first died with Vapi's answer in hand, and another made the second."""
    call = a_call()
    first = sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now())
    second = FakeVapi(answers=vapi_call("the-second"))
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="consumer", client=second, from_another=True)
    tells(call, "the-first", final("Nobody hears this"), OVER, claim=first)
    assert (said(call), stands(call)) == ([], ("the-second", VapiState.LIVE))
    tells(call, "the-second", final("Hello?"), OVER)
    assert (said(call), stands(call)) == (["Hello?"], ("the-second", VapiState.ENDED))


def test_a_call_that_was_given_up_is_not_taken_for_the_one_that_is_being_made() -> None:
    call = a_call()
    first = sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now())
    sessions.claim_session(pk=session_of(call).pk, by="consumer", at=timezone.now(), from_another=True)
    tells(call, "the-first", final("Nobody hears this"), claim=first)
    assert said(call) == []
    assert InboxMessage.objects.get().processed_at is None


def test_of_two_calls_that_one_create_made_the_one_that_has_told_of_itself_stays() -> None:
    """Vapi made the first, said that it had failed, and was asked once more."""
    call = a_call()
    created(call, "the-second")
    tells(call, "the-second", final("Hello?"))
    tells(call, "the-first", OVER)
    assert stands(call) == ("the-second", VapiState.LIVE)


@pytest.mark.parametrize("first", [0, 1])
def test_two_calls_whose_ids_are_mixed_up_have_each_their_own_words_and_end_whoever_tells_first(first: int) -> None:
    calls = [a_call(), a_call()]
    for call, told in zip(calls, ("nobodys", "of-the-first"), strict=True):
        created(call, told)
    real = {calls[0]: "of-the-first", calls[1]: "of-the-second"}
    order = [calls[first], calls[1 - first]]
    for call in order:
        tells(call, real[call], final(f"I am {real[call]}"))
    for call in order:
        tells(call, real[call], OVER)
    assert [said(call) for call in calls] == [["I am of-the-first"], ["I am of-the-second"]]
    assert [stands(call) for call in calls] == [("of-the-first", VapiState.ENDED), ("of-the-second", VapiState.ENDED)]


def test_who_was_told_anothers_id_is_ended_neither_by_its_words_nor_by_its_end() -> None:
    calls = [a_call(), a_call()]
    for call, told in zip(calls, ("nobodys", "of-the-first"), strict=True):
        created(call, told)
    tells(calls[0], "of-the-first", final("Hello?"), OVER)
    assert (said(calls[1]), stands(calls[1])) == ([], (None, VapiState.LIVE))


def test_who_is_told_the_id_of_a_call_that_came_to_nothing_gets_neither_its_words_nor_its_id() -> None:
    nothing, call = a_call(), a_call()
    refused = FakeVapi(problem=VapiUnavailable("Vapi's answer is not sane JSON.", status=201))
    sessions.start_conversation(vapi_session_pk=session_of(nothing).pk, by="worker", client=refused)
    tells(nothing, "of-nothing", final("Is anybody there?"), OVER)
    created(call, "of-nothing")
    assert not InboxMessage.objects.filter(call=call).exists()
    inbox.catch_up(vapi_session_pk=session_of(call).pk, at=timezone.now())
    tells(call, "its-own", final("Hello?"))
    assert (said(call), stands(call)) == (["Hello?"], ("its-own", VapiState.LIVE))
    assert said(nothing) == ["Is anybody there?"]


def test_what_waited_in_the_inbox_is_known_by_its_claim_when_it_is_looked_at_again() -> None:
    call = a_call()
    session = created(call, "nobodys")
    VapiSession.objects.filter(pk=session.pk).update(state=VapiState.CLAIMED, vapi_call_id=None)
    tells(call, "its-own", OVER)
    VapiSession.objects.filter(pk=session.pk).update(state=VapiState.LIVE, vapi_call_id="nobodys")
    assert inbox.process(pk=InboxMessage.objects.get().pk, at=timezone.now())
    assert stands(call) == ("its-own", VapiState.ENDED)


def test_a_call_whose_ids_are_erased_gets_none_again() -> None:
    call = a_call()
    VapiSession.objects.filter(pk=created(call, "nobodys").pk).update(vapi_call_id=f"{erasure.BLANK_ID}1", state=VapiState.ENDED)
    tells(call, "its-own", final("Hello?"))
    assert (said(call), stands(call)) == ([], (f"{erasure.BLANK_ID}1", VapiState.ENDED))


def test_a_call_that_shows_no_claim_is_known_by_its_id_alone_once_we_have_one() -> None:
    call = a_call()
    created(call, "told")
    tells(call, "another", final("Nobody hears this"), OVER, claim="")
    assert (said(call), stands(call)) == ([], ("told", VapiState.LIVE))
