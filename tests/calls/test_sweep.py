"""The sweep: silent calls are ended once, living ones never, and Twilio is asked first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from bridge.errors import TwilioRefused, TwilioUnavailable
from calls import handover, services
from calls.models import CallSession, EndReason, OutboxCommand, Outcome, Status, VapiSession
from calls.sweep import SECOND_LOOK_AFTER, end_silent_calls
from tests.builders import EPOCH, a_call, at_once
from tests.calls.test_handover import fresh

pytestmark = pytest.mark.django_db
threaded = pytest.mark.django_db(transaction=True)
TTL = timedelta(hours=1)
LIVING = [Status.CONNECTING, Status.STREAMING, Status.RECOVERING]
ELSEWHERE = [Status.TRANSFERRING, Status.VOICEMAIL]


class FakeTwilio:
    """Says `word` of every call, or of those in `words`; `problem` is raised instead."""

    def __init__(self, word: str = "in-progress", *, problem: Exception | None = None, **words: str) -> None:
        self.word, self.words, self.problem = word, words, problem
        self.asked: list[str] = []
        self.hung_up: list[str] = []
        self.sent_on: list[str] = []

    def status(self, call_sid: str, account_sid: str = "") -> str:
        self.asked.append(call_sid)
        if self.problem is not None:
            raise self.problem
        return self.words.get(call_sid, self.word)

    def hang_up(self, call_sid: str, account_sid: str = "") -> bool:
        if self.problem is not None:
            raise self.problem
        self.hung_up.append(call_sid)
        return True

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
        self.sent_on.append(call_sid)
        return True


def silent_call(status: Status, *, hours: float = 2, **fields: Any) -> CallSession:
    return a_call(status=status, stream_epoch=0, last_seen_at=timezone.now() - timedelta(hours=hours), **fields)


def swept(twilio: FakeTwilio | None) -> list[str]:
    return end_silent_calls(now=timezone.now(), ttl=TTL, twilio=twilio)


# -- nobody to ask -----------------------------------------------------------------------------------------------------


@threaded
def test_silent_calls_are_ended_once_and_living_ones_left() -> None:
    silent, living = silent_call(Status.STREAMING), silent_call(Status.STREAMING, hours=0.9)
    with_person, forgotten = silent_call(Status.TRANSFERRING, hours=4), silent_call(Status.TRANSFERRING, hours=6)
    ended = at_once([partial(swept, None)] * 4)
    assert sorted(sid for each in ended for sid in each) == sorted([silent.call_sid, forgotten.call_sid])
    assert (fresh(silent).end_reason, fresh(living).status, fresh(with_person).status) == ("ttl", "streaming", "transferring")
    assert not OutboxCommand.objects.exists()


def test_a_heartbeat_keeps_a_call_out_of_the_sweep() -> None:
    call = silent_call(Status.STREAMING)
    assert services.heartbeat(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert swept(None) == []


def test_a_three_hour_call_with_activity_on_the_audio_path_alone_outlives_a_ttl_of_a_minute() -> None:
    call = a_call(at=EPOCH, status=Status.STREAMING, stream_epoch=0, last_seen_at=EPOCH)
    twilio = FakeTwilio(problem=TwilioUnavailable("Twilio cannot be reached."))
    for second in range(0, 3 * 3600, 30):
        at = EPOCH + timedelta(seconds=second)
        services.heartbeat(call_sid=call.call_sid, epoch=0, at=at)
        if second % 120 == 0:
            assert end_silent_calls(now=at + timedelta(seconds=29), ttl=timedelta(seconds=60), twilio=twilio) == []
    assert fresh(call).status == Status.STREAMING
    assert twilio.asked == []
    assert end_silent_calls(now=at + timedelta(seconds=61), ttl=timedelta(seconds=60), twilio=None) == [call.call_sid]


# -- Twilio knows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*LIVING, *ELSEWHERE])
@pytest.mark.parametrize(
    ("word", "reason"), [("completed", "caller_hung_up"), ("busy", "caller_hung_up"), ("failed", "failed"), ("", "ttl")]
)
def test_a_call_that_is_over_at_twilio_is_ended_with_twilios_word(status: Status, word: str, reason: str) -> None:
    call, twilio = silent_call(status), FakeTwilio(word)
    assert swept(twilio) == [call.call_sid]
    assert fresh(call).end_reason == reason
    assert twilio.hung_up == []
    detail = call.events.get(kind="call-ended").detail
    assert detail == {"reason": reason, "raw": word or "unknown to Twilio"}


def test_a_talk_whose_end_nobody_told_is_ended_as_a_talk() -> None:
    call = silent_call(Status.TRANSFERRING)
    services.ask(call=call, key="dial:1", verb="dial", detail={"target": "tier2"}, at=timezone.now(), to="twilio")
    OutboxCommand.objects.update(done_at=timezone.now())
    swept(FakeTwilio("completed"))
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)


@pytest.mark.parametrize("status", ELSEWHERE)
def test_a_caller_with_a_person_or_at_the_voicemail_is_left_alone_while_twilio_has_them(status: Status) -> None:
    call, now = silent_call(status, hours=9), timezone.now()
    assert end_silent_calls(now=now, ttl=TTL, twilio=FakeTwilio("in-progress")) == []
    assert (fresh(call).status, fresh(call).last_seen_at) == (status, now)


@pytest.mark.parametrize("status", LIVING)
def test_a_dead_line_is_ended_here_and_hung_up_there(status: Status) -> None:
    call, twilio = silent_call(status), FakeTwilio("in-progress")
    assert swept(twilio) == [call.call_sid]
    assert (fresh(call).end_reason, twilio.hung_up) == ("ttl", [call.call_sid])
    assert swept(twilio) == []
    assert twilio.hung_up == [call.call_sid]


def test_a_call_that_gives_a_sign_of_life_while_twilio_is_asked_is_not_touched() -> None:
    call, twilio = silent_call(Status.STREAMING), FakeTwilio("completed")

    class Slow(FakeTwilio):
        def status(self, call_sid: str, account_sid: str = "") -> str:
            services.heartbeat(call_sid=call_sid, epoch=0, at=timezone.now())
            return super().status(call_sid)

    for word in ("completed", "in-progress", ""):
        CallSession.objects.filter(pk=call.pk).update(last_seen_at=timezone.now() - timedelta(hours=2))
        assert swept(twilio := Slow(word)) == []
        assert fresh(call).status == Status.STREAMING
        assert twilio.hung_up == []


@threaded
def test_two_sweeps_at_once_end_a_call_once() -> None:
    call, twilio = silent_call(Status.STREAMING), FakeTwilio("in-progress")
    ended = at_once([partial(swept, twilio)] * 4)
    assert [sid for each in ended for sid in each] == [call.call_sid]
    assert call.events.filter(kind="call-ended").count() == 1


# -- the end was told, but not to us -------------------------------------------------------------------------------------

A_MOMENT = 31 / 3600  # hours


@pytest.mark.parametrize("status", [*LIVING, *ELSEWHERE])
def test_a_call_whose_end_nobody_told_us_is_ended_within_two_minutes_and_not_after_the_ttl(status: Status) -> None:
    """The schedule of the sweep, 60 s, and the 30 s before it asks: less than the 120 s a call may stand without an end."""
    call, just_now = silent_call(status, hours=A_MOMENT), silent_call(status, hours=28 / 3600)
    twilio = FakeTwilio("completed")
    assert swept(twilio) == [call.call_sid]
    assert (fresh(call).end_reason, fresh(just_now).status) == (EndReason.CALLER_HUNG_UP, status)
    assert (twilio.asked, twilio.hung_up) == ([call.call_sid], [])


@pytest.mark.parametrize("word", ["in-progress", "ringing", "", None])
@pytest.mark.parametrize("status", [*LIVING, *ELSEWHERE])
def test_a_call_that_is_not_known_to_be_over_is_left_alone_until_the_ttl(status: Status, word: str | None) -> None:
    why = "caller-left" if status in ELSEWHERE else "stream-lost"  # a person may talk with who was still there then
    call = silent_call(status, hours=0.9, closed_epoch=0, closed_why=why)
    twilio = FakeTwilio(word) if word is not None else None
    assert swept(twilio) == []
    assert fresh(call).status == status
    assert twilio is None or twilio.hung_up == []


@pytest.mark.parametrize("nothing", [None, FakeTwilio(""), FakeTwilio(problem=TwilioUnavailable("Twilio cannot be reached."))])
def test_a_stopped_stream_that_twilio_never_asked_on_for_is_the_callers_end_if_twilio_says_nothing(nothing: FakeTwilio | None) -> None:
    stopped: dict[str, Any] = {"closed_epoch": 0, "closed_why": "caller-left"}
    left, talking_again = silent_call(Status.RECOVERING, hours=A_MOMENT, **stopped), silent_call(Status.STREAMING, epoch=1, **stopped)
    CallSession.objects.filter(pk=talking_again.pk).update(last_seen_at=fresh(left).last_seen_at)
    just_now = silent_call(Status.RECOVERING, hours=28 / 3600, **stopped)
    assert swept(nothing) == [left.call_sid]
    assert (fresh(left).end_reason, fresh(left).outcome) == (EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN)
    assert (fresh(talking_again).status, fresh(just_now).status) == (Status.STREAMING, Status.RECOVERING)


def test_a_caller_whose_stream_was_stopped_is_not_given_up_while_twilio_has_them() -> None:
    call = silent_call(Status.RECOVERING, hours=A_MOMENT, closed_epoch=0, closed_why="caller-left")
    twilio = FakeTwilio("in-progress")
    assert swept(twilio) == []
    assert (fresh(call).status, twilio.hung_up) == (Status.RECOVERING, [])


# -- Twilio does not answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [TwilioUnavailable("Twilio cannot be reached."), TwilioRefused("No.", status=401)])
def test_while_twilio_does_not_answer_a_talk_is_left_for_later_and_a_dead_line_is_hung_up_later(problem: Exception) -> None:
    talk, message, dead = silent_call(Status.TRANSFERRING), silent_call(Status.VOICEMAIL), silent_call(Status.STREAMING)
    away, back = FakeTwilio(problem=problem), FakeTwilio("in-progress")
    assert swept(away) == [dead.call_sid]
    assert (fresh(talk).status, fresh(message).status, fresh(dead).end_reason) == (Status.TRANSFERRING, Status.VOICEMAIL, "ttl")
    assert len(away.asked) == 1, "one time-out is enough for a sweep"
    assert swept(back) == []
    assert back.hung_up == [dead.call_sid]
    assert swept(back) == []
    assert back.hung_up == [dead.call_sid]


def test_a_talk_longer_than_twilio_allows_is_ended_even_if_twilio_never_answers() -> None:
    call = silent_call(Status.TRANSFERRING, hours=6)
    assert swept(FakeTwilio(problem=TwilioUnavailable("Twilio cannot be reached."))) == [call.call_sid]


def test_what_twilio_refuses_to_say_of_one_call_does_not_keep_the_others_from_being_asked() -> None:
    first, second = silent_call(Status.TRANSFERRING, hours=3), silent_call(Status.TRANSFERRING)
    twilio = FakeTwilio(problem=TwilioRefused("Twilio refused with 400.", status=400))
    swept(twilio)
    assert twilio.asked == [first.call_sid, second.call_sid]
    twilio = FakeTwilio(problem=TwilioRefused("Twilio does not accept our account and token.", status=401))
    swept(twilio)
    assert twilio.asked == [first.call_sid]


# -- a Twilio that answers slowly --------------------------------------------------------------------------------------


class SlowTwilio(FakeTwilio):
    """Takes five seconds for whatever it is asked."""

    now = 0.0

    def clock(self) -> float:
        return self.now

    def status(self, call_sid: str, account_sid: str = "") -> str:
        self.now += 5.0
        return super().status(call_sid, account_sid)

    def hang_up(self, call_sid: str, account_sid: str = "") -> bool:
        self.now += 5.0
        return super().hang_up(call_sid, account_sid)


def test_a_sweep_that_twilio_answers_slowly_leaves_the_rest_to_the_next_one_and_judges_nobody_it_did_not_look_at() -> None:
    dead = [silent_call(Status.STREAMING, hours=hours) for hours in (9, 8, 7, 6, 5, 4)]
    stopped = a_call(status=Status.RECOVERING, stream_epoch=0, closed_epoch=0, closed_why="caller-left")
    CallSession.objects.filter(pk=stopped.pk).update(last_seen_at=timezone.now() - timedelta(minutes=2))
    twilio = SlowTwilio()
    ended: list[str] = []
    for looked, hung_up in ((4, 3), (7, 6)):
        ended += end_silent_calls(now=timezone.now(), ttl=TTL, twilio=twilio, clock=twilio.clock)
        assert (len(twilio.asked), len(twilio.hung_up)) == (looked, hung_up)
        assert {call.call_sid for call in CallSession.objects.filter(ended_at__isnull=False)} == set(ended)
    assert ended == [call.call_sid for call in dead]
    assert set(twilio.hung_up) == set(ended)
    assert fresh(stopped).status == Status.RECOVERING


# -- callers whom everybody has forgotten --------------------------------------------------------------------------------


def seen_at_two_looks(call: CallSession, twilio: FakeTwilio, *, between: Callable[[], object] = lambda: None) -> None:
    """The second look comes when the first one's question is old enough to be answered."""
    assert swept(twilio) == []
    between()
    OutboxCommand.objects.filter(verb="send-on").update(asked_at=timezone.now() - SECOND_LOOK_AFTER)
    swept(twilio)


def forgotten(status: Status, **fields: Any) -> CallSession:
    """A minute after whoever was to send it on gave up."""
    call = silent_call(status, hours=1 / 60, **fields)
    VapiSession.objects.filter(call=call).update(asked_at=timezone.now() - timedelta(minutes=5))
    return call


WAYS: dict[str, dict[str, Any]] = {
    "on a stream": {"status": Status.STREAMING},
    "between two streams": {"status": Status.RECOVERING, "closed_epoch": 0, "closed_why": "stream-lost"},
    "after a stream that was stopped": {"status": Status.RECOVERING, "closed_epoch": 0, "closed_why": "caller-left"},
    "promised to a person who was not rung": {"status": Status.TRANSFERRING, "closed_epoch": 0, "closed_why": "handed-over"},
    "before a further stream": {"status": Status.CONNECTING, "epoch": 1, "closed_epoch": 0, "closed_why": "stream-lost"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_caller_whom_nobody_carries_any_more_is_sent_on_wherever_they_are(way: str) -> None:
    call, twilio = forgotten(**WAYS[way]), FakeTwilio("in-progress")
    seen_at_two_looks(call, twilio)
    assert (twilio.sent_on, twilio.hung_up, fresh(call).is_over) == ([call.call_sid], [], False)
    swept(twilio)
    assert twilio.sent_on == [call.call_sid], "once for each silence"


def is_heard_of(call: CallSession) -> None:
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=timezone.now())


def goes_on(call: CallSession) -> None:
    CallSession.objects.filter(pk=call.pk).update(epoch=2)


def leaves_a_message(call: CallSession) -> None:
    CallSession.objects.filter(pk=call.pk).update(status=Status.VOICEMAIL)


def ends(call: CallSession) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)


@pytest.mark.parametrize("news", [is_heard_of, goes_on, leaves_a_message, ends])
@pytest.mark.parametrize("way", WAYS)
def test_one_of_whom_there_is_news_between_the_two_looks_is_not(way: str, news: Callable[[CallSession], None]) -> None:
    call, twilio = forgotten(**WAYS[way]), FakeTwilio("in-progress")
    seen_at_two_looks(call, twilio, between=partial(news, call))
    assert twilio.sent_on == []


def rung(call: CallSession) -> None:
    key, at = f"dial:{call.call_sid}:0:tier2", timezone.now() - timedelta(minutes=2)
    services.ask(call=call, key=key, verb="dial", detail={"target": "tier2"}, at=at, to="twilio")


def led_by_heart(call: CallSession) -> None:
    handover.led_by_heart(call_sid=call.call_sid, epoch=0, at=timezone.now() - timedelta(minutes=2))


def picked_up(call: CallSession) -> None:
    handover.leg_told(call_sid=call.call_sid, target="tier2", status="in-progress", at=timezone.now() - timedelta(minutes=2))


@pytest.mark.parametrize("led", [rung, led_by_heart, picked_up])
@pytest.mark.parametrize("way", WAYS)
def test_one_who_may_be_with_a_person_or_leave_a_message_is_left_alone(way: str, led: Callable[[CallSession], None]) -> None:
    """Also when nobody could write that down in time."""
    call, twilio = forgotten(**WAYS[way]), FakeTwilio("in-progress")
    led(call)
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=call.last_seen_at)
    seen_at_two_looks(call, twilio)
    assert (twilio.sent_on, twilio.hung_up, fresh(call).is_over) == ([], [], False)


@pytest.mark.parametrize("status", [Status.WAITING, Status.VOICEMAIL, Status.CONNECTING])
def test_nor_is_one_who_waits_or_was_never_on_a_stream(status: Status) -> None:
    call, twilio = forgotten(status), FakeTwilio("in-progress")
    seen_at_two_looks(call, twilio)
    assert twilio.sent_on == []


@pytest.mark.parametrize("led", [rung, led_by_heart, picked_up])
def test_whoever_has_an_agent_again_since_is_with_nobody_else(led: Callable[[CallSession], None]) -> None:
    call, twilio = forgotten(Status.RECOVERING), FakeTwilio("in-progress")
    led(call)
    VapiSession.objects.filter(call=call).update(asked_at=timezone.now() - timedelta(seconds=70))
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=call.last_seen_at)
    seen_at_two_looks(call, twilio)
    assert twilio.sent_on == [call.call_sid]
