"""A conversation that was lost goes on: here or on another stream, once for each loss, and never for a call that may not."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.payload import HANDED_ON, RESUMED
from bridge.ports import Closing
from calls import by_heart, disk_marks, handover, ladder, memory, resuming, services, sessions, spoken
from calls.history import add_line
from calls.models import CallSession, EndReason, Heard, Role, Rung, Status, TranscriptLine, VapiState
from tests.builders import FakeVapi, a_call, a_line, session_of

pytestmark = pytest.mark.django_db


def fresh(call: CallSession) -> CallSession:
    return CallSession.objects.get(pk=call.pk)


def talking(**fields: Any) -> CallSession:
    call = a_call(status=Status.STREAMING, stream_epoch=0, **fields)
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    return call


def lost(call: CallSession, at: datetime | None = None) -> int | None:
    return resuming.here(call_sid=call.call_sid, epoch=fresh(call).epoch, raw="socket closed with 1011", at=at or timezone.now())


def said(call: CallSession, role: Role, text: str, ms: int) -> None:
    add_line(call=call, vapi_call_id="v0", role=role, text=text, vendor_ms=ms, at=timezone.now(), n=0)


def states(call: CallSession) -> list[tuple[int, str]]:
    return list(call.vapi_sessions.values_list("n", "state"))


def test_a_lost_agent_is_followed_by_the_next_session_of_the_same_stream() -> None:
    call = talking()
    assert lost(call) == call.vapi_sessions.get(n=1).pk
    assert (fresh(call).epoch, fresh(call).status, fresh(call).rung) == (0, Status.STREAMING, Rung.RESUMED)
    assert sessions.open_sessions(call_sid=call.call_sid) == [call.vapi_sessions.get(n=0).pk]
    assert states(call) == [(0, VapiState.LIVE), (1, VapiState.ASKED)]


def test_an_agent_that_was_ended_because_the_next_one_was_asked_for_is_followed_by_that_one() -> None:
    call = talking()
    sid, at = call.call_sid, timezone.now()
    second = resuming.here(call_sid=sid, epoch=0, raw="socket closed with 1011", at=at, n=0)
    assert resuming.here(call_sid=sid, epoch=0, raw="customer-ended-call", at=at, n=0) == second
    assert [n for n, _ in states(call)] == [0, 1]
    assert fresh(call).events.filter(kind="conversation-lost").count() == 1
    assert resuming.here(call_sid=sid, epoch=0, raw="socket closed with 1011", at=at, n=1) not in (None, second)


def test_the_third_loss_within_a_minute_leads_to_people_and_a_later_one_back_to_the_agent() -> None:
    call, now = talking(), timezone.now()
    assert lost(call, now) is not None
    assert lost(call, now + timedelta(seconds=50)) is not None
    assert lost(call, now + timedelta(seconds=100)) is None
    assert lost(call, now + timedelta(seconds=111)) is not None


@pytest.mark.parametrize("why", ["over", "closed", "failed", "person"])
def test_a_call_that_may_not_go_on_is_not_resumed(why: str) -> None:
    call, at = talking(), timezone.now()
    match why:
        case "over":
            services.end_call(call_sid=call.call_sid, at=at, reason="caller_hung_up")  # type: ignore[arg-type]
        case "closed":
            services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("stream-lost"), at=at)
        case "failed":
            call.vapi_sessions.update(state=VapiState.FAILED, ended_at=at)
        case "person":
            services.ask(call=call, key=services.hand_over_key(call.call_sid, 0), verb="hand-over", detail={}, at=at)
    assert lost(call) is None
    assert call.vapi_sessions.count() == 1


@pytest.mark.parametrize("why", ["stream-lost", "drained", "caller-left"])
def test_a_caller_whose_stream_is_over_gets_the_agent_back_on_another_one(why: str) -> None:
    a_line(targets=("tier2",))
    call = talking()
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=timezone.now())
    step = [handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now()) for _ in range(3)]
    assert step == [ladder.Resume()] * 3
    assert (fresh(call).epoch, fresh(call).status, fresh(call).rung) == (1, Status.CONNECTING, Rung.RESUMED)
    assert states(call) == [(0, VapiState.LIVE), (1, VapiState.ASKED)]
    assert not services.heartbeat(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert services.admit_stream(call_sid=call.call_sid, account_sid=call.account_sid, stream_sid="MZ2", epoch=1, at=timezone.now())


def test_a_caller_to_whom_no_further_stream_opens_gets_a_person_and_one_who_asks_early_another_stream() -> None:
    a_line(targets=("tier2",))
    call, now = talking(), timezone.now()
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("stream-dead"), at=now)
    assert handover.next_step(call_sid=call.call_sid, epoch=0, at=now) == ladder.Resume()
    assert not resuming.stream_is_missing(fresh(call), now + timedelta(seconds=2.9))
    later = [handover.next_step(call_sid=call.call_sid, epoch=1, at=now + timedelta(seconds=3 + again)) for again in range(2)]
    assert later == [ladder.DialHuman(ladder.Target("tier2"))] * 2
    assert (fresh(call).epoch, fresh(call).status, fresh(call).rung) == (1, Status.TRANSFERRING, Rung.HUMAN)


def test_a_further_stream_has_its_time_from_when_twilio_was_told_of_it() -> None:
    """A busy door takes seconds for its answer; who is led back to the next one a moment later gets no person for that."""
    a_line(targets=("tier2",))
    call, now = talking(), timezone.now()
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("stream-lost"), at=now)
    assert handover.next_step(call_sid=call.call_sid, epoch=0, at=now) == ladder.Resume()
    told_at = now + timedelta(seconds=2.6)
    by_heart.was_answered(call.call_sid, 0)
    mark = disk_marks.directory() / f"{call.call_sid}.answered-0"
    os.utime(mark, (told_at.timestamp(),) * 2, follow_symlinks=False)
    by_heart.was_answered(call.call_sid, 0)  # a repeat gets the same answer, and no further time
    assert not resuming.stream_is_missing(fresh(call), told_at + timedelta(seconds=2.9))
    assert resuming.stream_is_missing(fresh(call), told_at + timedelta(seconds=3.1))


@pytest.mark.parametrize(("why", "said"), [("stream-dead", True), ("stream-lost", False)])
def test_a_caller_who_sat_on_a_dead_stream_hears_a_word_before_the_next_one(why: str, said: bool) -> None:
    call = talking()
    moved(call, why, timezone.now())
    assert ("<Say>" in spoken.connect(fresh(call))) is said
    moved(call, "drained", timezone.now())
    assert "<Say>" not in spoken.connect(fresh(call))


def moved(call: CallSession, why: str, at: datetime) -> ladder.Step | handover.AskAnew:
    """The stream is over, Twilio asks what is next, and opens the one it is told of."""
    sid, epoch = call.call_sid, fresh(call).epoch
    services.stream_closed(call_sid=sid, epoch=epoch, closing=Closing(why), at=at)
    step = handover.next_step(call_sid=sid, epoch=epoch, at=at)
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.latest("n").pk, by="worker", client=FakeVapi())
    services.admit_stream(call_sid=sid, account_sid=call.account_sid, stream_sid=f"MZ{epoch + 2}", epoch=epoch + 1, at=at)
    return step


def test_a_call_that_a_process_hands_on_because_it_leaves_has_lost_nothing_however_often_it_is() -> None:
    a_line(targets=("tier2",))
    call, now = talking(), timezone.now()
    assert [moved(call, "drained", now + timedelta(seconds=second)) for second in range(5)] == [ladder.Resume()] * 5
    assert [moved(call, "stream-lost", now + timedelta(seconds=second)) for second in (6, 7)] == [ladder.Resume()] * 2
    kinds = list(call.events.values_list("kind", flat=True))
    assert (kinds.count("conversation-handed-on"), kinds.count("conversation-lost")) == (5, 2)
    assert isinstance(moved(call, "stream-lost", now + timedelta(seconds=8)), ladder.DialHuman)


@pytest.mark.parametrize(("why", "words"), [("drained", HANDED_ON), ("stream-lost", RESUMED)])
def test_who_was_handed_on_in_good_order_hears_no_apology(why: str, words: str) -> None:
    call, client = talking(), FakeVapi()
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=timezone.now())
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get(n=1).pk, by="worker", client=client)
    assert client.created[-1]["assistant"]["firstMessage"] == words


def test_who_asks_for_an_epoch_that_is_long_over_is_sent_to_the_door_of_the_newest_and_changes_nothing() -> None:
    call = talking()
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    services.admit_stream(call_sid=call.call_sid, account_sid=call.account_sid, stream_sid="MZ2", epoch=1, at=timezone.now())
    before = CallSession.objects.values().get(pk=call.pk)
    assert handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now()) == handover.AskAnew(1)
    assert CallSession.objects.values().get(pk=call.pk) == before
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now()) == ladder.HangUp()


def test_the_next_session_is_told_what_was_said_as_far_as_it_was_heard_and_does_not_greet() -> None:
    call = talking()
    said(call, Role.ASSISTANT, "Thanks for calling. How can I help?", 1000)
    said(call, Role.USER, "I cannot log in.", 2000)
    said(call, Role.ASSISTANT, "No problem. Open the page and then click.", 3000)
    said(call, Role.ASSISTANT, "Nobody heard this.", 4000)
    TranscriptLine.objects.filter(said__startswith="No problem").update(heard=Heard.PART, heard_text="No problem. Open the")
    TranscriptLine.objects.filter(said__startswith="Nobody").update(heard=Heard.NONE)
    client = FakeVapi()
    assert sessions.start_conversation(vapi_session_pk=lost(call) or 0, by="worker", client=client)
    assistant = client.created[-1]["assistant"]
    assert assistant["firstMessage"] == RESUMED
    assert [(each["role"], each["content"]) for each in assistant["model"]["messages"][1:]] == [
        ("assistant", "Thanks for calling. How can I help?"),
        ("user", "I cannot log in."),
        ("assistant", "No problem. Open the"),
    ]


def test_of_a_long_conversation_the_end_is_told() -> None:
    call = talking()
    for number in range(100):
        said(call, Role.USER, f"{number} " + "x" * 300, 1000 + number)
    told = memory.so_far(call)
    assert told[-1].words.startswith("99 ")
    assert 20 <= len(told) <= 40
    assert sum(len(each.words) for each in told) <= 8000
