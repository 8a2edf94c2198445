"""The last news of a call: who is told first does not matter, and a message or a promise is never forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import permutations

import pytest
from django.utils import timezone

from agents.models import PhoneLine
from bridge.ports import Closing
from calls import callbacks, endings, handover, services
from calls.models import CallbackRequest, CallSession, EndReason, Outcome, Recording, RecordingKind, RecordingState, Rung, Status
from tests.builders import ACCOUNT, CALLER, LINE, a_call, a_line, at_once, call_sid
from tests.calls.test_handover import fresh, lost_call

pytestmark = pytest.mark.django_db
threaded = pytest.mark.django_db(transaction=True)
RE = "RE" + "d" * 32


def at_voicemail() -> CallSession:
    call = lost_call()
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert fresh(call).status == Status.VOICEMAIL
    return call


def leg_over(call: CallSession, status: str = "completed") -> bool:
    return endings.leg_over(call_sid=call.call_sid, status=status, at=timezone.now())


def message(call: CallSession, seconds: int = 9, sid: str = RE) -> bool:
    return endings.message_left(call_sid=call.call_sid, epoch=0, recording=sid, seconds=seconds, at=timezone.now())


def sound(
    call: CallSession, status: str = "completed", seconds: int = 9, kind: RecordingKind = RecordingKind.VOICEMAIL, sid: str = RE
) -> bool:
    return endings.recording_told(call_sid=call.call_sid, sid=sid, kind=kind, status=status, seconds=seconds, at=timezone.now())


def key_one(call: CallSession) -> bool:
    return endings.callback_asked(call_sid=call.call_sid, epoch=0, at=timezone.now())


def kinds(call: CallSession) -> list[str]:
    return list(call.events.values_list("kind", flat=True))


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations([leg_over, message, sound])), ids=lambda order: " ".join(f.__name__ for f in order))
def test_a_message_that_was_left_counts_whichever_of_twilios_words_comes_first(order: tuple[Callable[[CallSession], bool], ...]) -> None:
    call = at_voicemail()
    for news in (*order, *order):
        news(call)
    assert (fresh(call).end_reason, fresh(call).outcome, fresh(call).rung) == (EndReason.VOICEMAIL_LEFT, Outcome.VOICEMAIL, Rung.VOICEMAIL)
    recording = Recording.objects.get()
    assert (recording.call, recording.sid, recording.kind, recording.state, recording.seconds) == (call, RE, "voicemail", "completed", 9)
    assert CallbackRequest.objects.get().call == call
    assert [kinds(call).count(kind) for kind in ("call-ended", "voicemail-recorded", "callback-promised")] == [1, 1, 1]


@threaded
def test_twilios_words_on_a_message_may_come_at_the_same_moment() -> None:
    call = at_voicemail()
    at_once([partial(news, call) for news in (leg_over, message, sound)])
    assert fresh(call).end_reason == EndReason.VOICEMAIL_LEFT
    assert (Recording.objects.count(), CallbackRequest.objects.count(), kinds(call).count("call-ended")) == (1, 1, 1)


def test_a_caller_who_says_nothing_after_the_tone_has_given_up() -> None:
    call = at_voicemail()
    assert message(call, seconds=0, sid="")
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)
    assert not Recording.objects.exists()
    assert not CallbackRequest.objects.exists()


def test_a_message_that_overtakes_the_end_of_ringing_says_where_the_caller_has_been() -> None:
    call = lost_call("tier2")
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert message(call)
    assert (fresh(call).rung, fresh(call).end_reason) == (Rung.VOICEMAIL, EndReason.VOICEMAIL_LEFT)


def test_a_talk_that_is_told_after_the_hang_up_was_a_talk() -> None:
    call = lost_call("tier2")
    handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert leg_over(call)
    assert fresh(call).end_reason == EndReason.CALLER_HUNG_UP
    handover.dial_result(call_sid=call.call_sid, epoch=0, target="tier2", status="completed", at=timezone.now())
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)


def test_an_empty_recording_is_no_message() -> None:
    call = at_voicemail()
    assert sound(call, status="absent", seconds=0)
    assert not sound(call, status="absent", seconds=0)
    assert leg_over(call)
    assert (Recording.objects.get().state, fresh(call).outcome) == (RecordingState.ABSENT, Outcome.ABANDONED)
    assert not CallbackRequest.objects.exists()


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_a_message_is_the_better_word_than_any_hang_up(status: str) -> None:
    call = at_voicemail()
    assert leg_over(call, status)
    assert message(call)
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.VOICEMAIL_LEFT, Outcome.VOICEMAIL)


def test_a_recording_belongs_to_the_call_that_named_it_first() -> None:
    mine, other = at_voicemail(), at_voicemail()
    assert sound(mine)
    assert not sound(other, seconds=30)
    leg_over(other)
    assert (Recording.objects.get().call, Recording.objects.get().seconds) == (mine, 9)
    assert fresh(other).end_reason == EndReason.CALLER_HUNG_UP


# -- calls back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over_first", [False, True])
def test_a_caller_who_wants_to_be_called_back_is_promised_it(over_first: bool) -> None:
    call = at_voicemail()
    PhoneLine.objects.update(callback_hours=3)
    for news in (leg_over, key_one) if over_first else (key_one, leg_over):
        news(call)
    key_one(call)
    request = CallbackRequest.objects.get()
    assert request.due_at - request.asked_at == timedelta(hours=3)
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.CALLBACK_PROMISED, Outcome.CALLBACK)
    assert kinds(call).count("callback-promised") == 1


@threaded
def test_one_of_two_colleagues_has_called_back() -> None:
    call = at_voicemail()
    key_one(call)
    request = CallbackRequest.objects.get()
    done: list[Callable[[], bool]] = [
        partial(callbacks.done, pk=request.pk, by=by, note="solved", at=timezone.now()) for by in ("sam", "kim")
    ]
    assert sorted(at_once(done)) == [False, True]
    request.refresh_from_db()
    assert request.done_at is not None
    assert (request.done_by in ("sam", "kim"), request.note) == (True, "solved")
    assert kinds(call).count("callback-done") == 1


# -- recordings of whole calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(["in-progress", "completed", "completed"])))
def test_a_recorded_call_says_so_once_and_never_falls_back_to_being_recorded(order: tuple[str, ...]) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    for status in order:
        sound(call, status, seconds=61 if status == "completed" else 0, kind=RecordingKind.CALL)
    recording = Recording.objects.get()
    assert (recording.kind, recording.state, recording.seconds) == ("call", "completed", 61)
    assert kinds(call).count("recording-started") == 1
    assert fresh(call).status == Status.STREAMING


def test_other_news_of_a_recording_changes_nothing() -> None:
    call = a_call()
    assert not sound(call, "processing")
    assert not endings.recording_told(
        call_sid=call_sid(), sid=RE, kind=RecordingKind.CALL, status="completed", seconds=1, at=timezone.now()
    )
    assert not Recording.objects.exists()


# -- hanging up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": Status.CONNECTING}, Outcome.ABANDONED),
        ({"status": Status.STREAMING, "stream_epoch": 0}, Outcome.UNKNOWN),
        ({"status": Status.RECOVERING, "stream_epoch": 0, "closed_epoch": 0, "closed_why": "agent-lost"}, Outcome.UNKNOWN),
        ({"status": Status.TRANSFERRING, "stream_epoch": 0, "closed_epoch": 0, "closed_why": "handed-over"}, Outcome.ABANDONED),
    ],
)
def test_a_caller_who_leaves_while_waiting_has_given_up(fields: dict[str, object], outcome: Outcome) -> None:
    call = a_call(**fields)  # type: ignore[arg-type]
    assert leg_over(call)
    assert not leg_over(call)
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.CALLER_HUNG_UP, outcome)


@pytest.mark.parametrize(
    ("closing", "ending"),
    [
        (Closing("agent-ended"), (EndReason.AGENT_ENDED, Outcome.RESOLVED)),
        (Closing("agent-ended", raw="silence-timed-out"), (EndReason.SILENCE, Outcome.UNKNOWN)),
        (Closing("caller-left"), (EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN)),
        (Closing("handed-over"), (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)),
        (Closing("agent-lost"), (EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN)),
    ],
)
@pytest.mark.parametrize("bridge_first", [True, False])
def test_the_bridges_word_on_the_stream_and_twilios_on_the_call_may_come_in_any_order(
    closing: Closing, ending: tuple[EndReason, Outcome], bridge_first: bool
) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)

    def stream_closed() -> None:
        assert services.stream_closed(call_sid=call.call_sid, epoch=0, closing=closing, at=timezone.now())

    def over() -> None:
        leg_over(call)

    for news in (stream_closed, over) if bridge_first else (over, stream_closed):
        news()
    assert (fresh(call).end_reason, fresh(call).outcome) == ending
    assert kinds(call).count("call-ended") == 1


def test_a_call_that_is_over_before_we_heard_of_it_stays_over_when_its_first_webhook_comes() -> None:
    a_line()
    about = {"sid": call_sid(), "account_sid": ACCOUNT, "from_number": CALLER, "to_number": LINE, "at": timezone.now()}
    assert services.missed_call(**about)  # type: ignore[arg-type]
    assert not services.missed_call(**about)  # type: ignore[arg-type]
    call = services.open_call(**about)  # type: ignore[arg-type]
    assert call is not None
    assert call.is_over
    assert not call.vapi_sessions.exists()
    assert (call.end_reason, call.outcome, kinds(call)) == ("caller_hung_up", "abandoned", ["call-received", "call-ended"])
    assert not services.missed_call(**about | {"sid": call_sid(), "to_number": "+15550100999"})  # type: ignore[arg-type]
