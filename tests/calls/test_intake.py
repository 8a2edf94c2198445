"""What Vapi posts in the same moment is taken in together, and comes to the same as one after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from calls import away, inbox, intake, sessions, vapi_events
from calls.models import CallEvent, CallSession, InboxMessage, TranscriptLine, VapiSession, VapiState
from calls.together import Together
from calls.vapi_events import VapiMessage
from tests.builders import a_call, at_once, session_of

pytestmark = pytest.mark.django_db(transaction=True)

START = 1_795_342_807_000


def a_live_call() -> CallSession:
    call = a_call()
    VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    return call


def told(call: CallSession, kind: str = "transcript", **body: Any) -> VapiMessage:
    vapi = {"id": f"v-{call.call_sid}", "name": f"{call.call_sid}.0"}
    return vapi_events.read(json.dumps({"message": {"type": kind, "call": vapi, **body}}).encode())


def final(call: CallSession, text: str, *, ms: int = 0, role: str = "user") -> VapiMessage:
    return told(call, transcriptType="final", role=role, transcript=text, timestamp=START + ms)


def conversation(call: CallSession) -> list[VapiMessage]:
    """Pieces, a repetition, a turn told again and longer, the agent's answer, and the end."""
    return [
        final(call, "I already", ms=0),
        final(call, "I already tried that", ms=900),
        final(call, "I already tried that", ms=900),
        final(call, "Then try this.", ms=2000, role="assistant"),
        final(call, " ", ms=2500),
        told(call, "transcript", transcriptType="final", role=["user"], transcript="odd", timestamp=START),
        told(call, "hang"),
        told(call, "status-update", status="ended", endedReason="customer-ended-call"),
    ]


def outcome(call: CallSession) -> dict[str, Any]:
    lines = TranscriptLine.everything.filter(call=call).exclude(role="system").order_by("vendor_ms", "pk")
    inboxed = InboxMessage.objects.filter(call=call)
    return {
        "lines": list(lines.values_list("role", "said", "vendor_ms", "retold", "n")),
        "events": sorted(CallEvent.objects.filter(call=call, source="vapi").values_list("kind", flat=True)),
        "numbers": sorted(CallEvent.objects.filter(call=call).values_list("seq", flat=True))
        == list(range(1, CallSession.objects.get(pk=call.pk).last_event_seq + 1)),
        "inbox": sorted(inboxed.exclude(processed_at=None).values_list("kind", "problem")),
        "session": session_of(call).state,
    }


def test_messages_taken_in_together_come_to_the_same_as_one_after_the_other() -> None:
    alone, together = a_live_call(), [a_live_call() for _ in range(3)]
    for message in conversation(alone):
        intake.take(message)
    intake.take_all([message for talk in zip(*map(conversation, together), strict=True) for message in talk])
    expected = outcome(alone)
    assert [line[:2] for line in expected["lines"]] == [
        ("user", "I already"),
        ("user", "I already tried that"),
        ("assistant", "Then try this."),
    ]
    assert expected["session"] == VapiState.ENDED
    assert len(expected["inbox"]) == 7
    for call in together:
        assert outcome(call) == expected


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_the_finals_of_thirty_calls_cost_little_more_statements_than_one(role: str) -> None:
    def statements(calls: Sequence[CallSession], text: str) -> int:
        with CaptureQueriesContext(connection) as asked:
            intake.take_all([final(call, text, ms=5000, role=role) for call in calls])
        return len(asked)

    calls = [a_live_call() for _ in range(30)]
    one = statements(calls[:1], "Hello?")
    assert statements(calls, "Are you there?") <= one + 2
    assert TranscriptLine.objects.filter(said="Are you there?").count() == 30


def test_a_message_that_no_history_can_be_made_of_is_kept_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [a_live_call() for _ in range(2)]
    with monkeypatch.context() as broken:
        broken.setattr(sessions, "session_ended", lambda **_: 1 / 0)
        intake.take_all([told(calls[0], "status-update", status="ended"), final(calls[1], "Hello?")])
    assert TranscriptLine.objects.get(role="user").call == calls[1]
    left = InboxMessage.objects.get(processed_at=None)
    assert inbox.process(pk=left.pk, at=timezone.now())
    assert session_of(calls[0]).state == VapiState.ENDED


def test_what_cannot_be_stored_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_live_call()

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(inbox, "enter_all", away)
    with pytest.raises(DatabaseError):
        intake.take(final(call, "Hello?"))
    assert not InboxMessage.objects.exists()


def test_the_same_message_at_two_doors_at_once_is_one_line() -> None:
    """Each process has a door of its own."""
    calls = [a_live_call() for _ in range(4)]
    doors = [Together(write=intake.take_all, is_away=away.is_away, most=2, room=50) for _ in range(2)]
    at_once([partial(door.write, final(call, "Hello?"), within_s=10) for call in calls for door in doors * 2])
    for call in calls:
        assert call.lines.filter(role="user").count() == 1
        assert InboxMessage.objects.filter(call=call).count() == 1
