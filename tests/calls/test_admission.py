"""The AI carries so many calls and no more; the others wait in their order, half a minute at most, and nobody is lost there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.models import QuerySet
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings

from agents import lines
from bridge import stream_token
from bridge.errors import VapiRefused, VapiUnavailable
from bridge.ports import Closing
from calls import admission, breaker, ladder, patience, queueing, services, sessions, sweep
from calls.models import CallbackRequest, CallSession, EndReason, Outcome, Status, VapiSession
from calls.queue_rows import AgentPlace, LineLimit, Waiting
from tests.builders import FakeVapi, a_call, at_once, call_sid, session_of
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALLER, NUMBER, PUBLIC_URL, TOKEN, Remembering, incoming, knock, tree, verbs

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/twilio"
FIRST, SECOND, THIRD, FOURTH = ("CA" + digit * 32 for digit in "1234")


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = PUBLIC_URL, [TOKEN], "tests"
    settings.MAX_CALLS = 1
    lines.forget()


@pytest.fixture(autouse=True)
def published() -> Iterator[Remembering]:
    with doors.remembering() as remembered:
        yield remembered


def about(sid: str, status: str = "in-progress", **more: str) -> dict[str, str]:
    return {"CallSid": sid, "AccountSid": ACCOUNT_SID, "From": CALLER, "To": NUMBER, "CallStatus": status, **more}


def ring(client: Client, sid: str) -> list[str]:
    return verbs(knock(client, DOOR, incoming(sid)))


def ring_until_answered(sid: str) -> list[str]:
    """Twilio asks again where the database had no time for a caller."""
    while (answer := knock(Client(), DOOR, incoming(sid))).status_code == 503:
        continue
    return verbs(answer)


def asked(client: Client, sid: str, turn: int = 1) -> list[Any]:
    return tree(knock(client, f"{DOOR}/wait/0/{turn}", about(sid)))


def said(answer: list[Any]) -> list[str]:
    """The sentences of the first verb, a <Gather>."""
    return [sentence[2] for sentence in answer[0][3:]]


def call(sid: str) -> CallSession:
    return CallSession.objects.get(call_sid=sid)


def events(sid: str) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, event.detail) for event in call(sid).events.all()]


def over(sid: str) -> None:
    services.end_call(call_sid=sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)


def waited(sid: str, seconds: float) -> None:
    Waiting.objects.filter(call__call_sid=sid).update(joined_at=timezone.now() - timedelta(seconds=seconds))


@pytest.fixture
def full(client: Client) -> None:
    """The one place is taken, and two wait."""
    doors.a_line(disclosure="An AI agent answers.")
    assert ring(client, FIRST) == ["Say", "Connect", "Redirect"]
    assert ring(client, SECOND) == ring(client, THIRD) == ["Gather", "Redirect"]


# -- in the queue ----------------------------------------------------------------------------------------------------------


def test_a_caller_beyond_the_limit_hears_their_place_at_once_and_is_offered_a_call_back(client: Client, full: None) -> None:
    answer = tree(knock(client, DOOR, incoming(THIRD)))
    ways_out = ["To be called back within 4 hours instead, press 1.", "To leave a message, press 2."]
    assert said(answer) == ["All our agents are talking.", "You are number 2.", *ways_out]
    assert answer[0][1]["action"] == f"{PUBLIC_URL}{DOOR}/wait/0/1"
    assert answer[1][2] == f"{PUBLIC_URL}{DOOR}/wait/0/1"
    assert call(THIRD).status == Status.WAITING
    assert events(THIRD) == [("call-received", {}), ("queue-joined", {"place": 2})]
    assert VapiSession.objects.filter(call=call(THIRD)).count() == 0


def test_callers_who_came_together_come_back_in_different_seconds(client: Client, full: None) -> None:
    sids = [f"CA{number:032x}" for number in range(30)]
    first = [tree(knock(client, DOOR, incoming(sid)))[0][1]["timeout"] for sid in sids]
    later = {tree(knock(client, f"{DOOR}/wait/0/1", about(sid)))[0][1]["timeout"] for sid in sids}
    again = [tree(knock(client, DOOR, incoming(sid)))[0][1]["timeout"] for sid in sids]
    assert set(first) == {"2", "3", "4"}
    assert min(map(first.count, set(first))) >= 5
    assert later == {"2"}
    assert again == first


def test_who_waits_has_not_been_told_of_the_agent_yet_and_is_when_it_comes(client: Client, full: None) -> None:
    assert call(SECOND).disclosed_at is None
    assert call(SECOND).lines.count() == 0
    over(FIRST)
    assert [verb[0] for verb in asked(client, SECOND)] == ["Say", "Connect", "Redirect"]
    assert call(SECOND).disclosed_at is not None
    assert [line.said for line in call(SECOND).lines.all()] == ["An AI agent answers."]


def test_a_free_place_goes_to_who_came_first_and_the_next_one_moves_up(client: Client, full: None, published: Remembering) -> None:
    over(FIRST)
    assert said(asked(client, THIRD)) == ["Please stay on the line."]
    assert ring(client, FOURTH) == ["Gather", "Redirect"]
    assert asked(client, SECOND)[1][0] == "Connect"
    assert said(asked(client, THIRD, 2))[0] == "You are number 1."
    assert call(SECOND).status == Status.CONNECTING
    assert published.tasks[-1] == ("start_conversation", (session_of(call(SECOND)).pk,))
    over(SECOND)
    assert [detail for kind, detail in events(SECOND) if kind == "queue-left"] == [{"why": "agent"}]


def test_of_two_who_came_in_the_same_moment_one_is_first(client: Client, full: None) -> None:
    Waiting.objects.update(joined_at=timezone.now())
    over(FIRST)
    assert said(asked(client, THIRD)) == ["Please stay on the line."]
    assert asked(client, SECOND)[1][0] == "Connect"


def test_the_place_is_said_again_after_ten_seconds_and_not_before(client: Client, full: None) -> None:
    assert said(asked(client, SECOND, 1)) == ["Please stay on the line."]
    Waiting.objects.update(said_at=timezone.now() - queueing.SAID_AGAIN_AFTER)
    assert said(asked(client, SECOND, 2))[0] == "You are number 1."
    assert said(asked(client, SECOND, 3)) == ["Please stay on the line."]


def test_a_turn_that_twilio_asks_about_late_says_no_place_and_changes_nothing(client: Client, full: None) -> None:
    over(FIRST)
    assert asked(client, SECOND)[1][0] == "Connect"
    said_in_the_third = said(asked(client, THIRD, 3))
    assert said_in_the_third[0] == "You are number 1."
    Waiting.objects.update(said_at=timezone.now() - queueing.SAID_AGAIN_AFTER)
    assert said(asked(client, THIRD, 2)) == ["Please stay on the line."]
    assert said(asked(client, THIRD, 3)) == said_in_the_third


def test_the_stream_of_a_caller_who_waited_long_has_as_much_time_to_come_as_any(client: Client, full: None) -> None:
    CallSession.objects.filter(call_sid=SECOND).update(started_at=timezone.now() - timedelta(seconds=170))
    over(FIRST)
    connect = asked(client, SECOND)[1]
    token, now = connect[3][3][1]["value"], timezone.now().timestamp()
    assert stream_token.check(key=stream_token.key_from("tests"), token=token, call_sid=SECOND, now=now + stream_token.LIFE_S - 5) == 0


def test_a_caller_whose_place_went_to_another_in_that_moment_waits_on(client: Client, full: None, monkeypatch: pytest.MonkeyPatch) -> None:
    over(FIRST)
    monkeypatch.setattr("calls.admission.take", lambda *_, **__: False)
    assert [verb[0] for verb in asked(client, SECOND)] == ["Gather", "Redirect"]
    waited(SECOND, 500)
    assert [verb[0] for verb in asked(client, SECOND, 2)] == ["Say", "Dial"]


def test_a_door_that_is_asked_again_answers_the_same(client: Client, full: None) -> None:
    over(FIRST)
    pages = [knock(client, f"{DOOR}/wait/0/1", about(SECOND)).content for _ in range(3)]
    assert len(set(pages)) == 1
    assert call(SECOND).vapi_sessions.count() == 1
    assert services.admit_stream(call_sid=SECOND, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())
    assert knock(client, f"{DOOR}/wait/0/1", about(SECOND)).content == pages[0]
    assert (call(SECOND).epoch, call(SECOND).status) == (0, Status.STREAMING)
    repeated = [knock(client, DOOR, incoming(THIRD)).content for _ in range(2)]
    assert repeated[0] == repeated[1]


def test_a_door_that_is_asked_twice_at_once_gives_the_place_once(client: Client, full: None) -> None:
    over(FIRST)
    answers = at_once([lambda: verbs(knock(Client(), f"{DOOR}/wait/0/1", about(SECOND)))] * 4)
    assert answers == [["Say", "Connect", "Redirect"]] * 4
    assert (call(SECOND).epoch, call(SECOND).vapi_sessions.count()) == (0, 1)


# -- the ways out ----------------------------------------------------------------------------------------------------------


def test_nobody_waits_longer_than_half_a_minute_for_the_agent(client: Client, full: None) -> None:
    waited(SECOND, 18)
    assert said(asked(client, SECOND)) != []
    waited(SECOND, 19.1)
    assert [verb[0] for verb in asked(client, SECOND, 2)] == ["Say", "Dial"]
    assert [verb[0] for verb in asked(client, SECOND, 2)] == ["Say", "Dial"]
    assert (call(SECOND).status, call(SECOND).rung) == (Status.TRANSFERRING, "R3")
    assert ("queue-left", {"why": "person"}) in events(SECOND)
    assert ("rung-changed", {"from": "R0", "to": "R3", "why": "all agents talk"}) in events(SECOND)
    assert call(FIRST).status == Status.CONNECTING


def test_a_clock_that_jumped_back_keeps_nobody_waiting(client: Client, full: None) -> None:
    waited(SECOND, -7200)
    assert said(asked(client, SECOND, 9)) != []
    assert [verb[0] for verb in asked(client, SECOND, 10)] == ["Say", "Dial"]


def test_without_people_the_voicemail_takes_who_has_waited_long_enough(client: Client) -> None:
    doors.a_line(people=())
    ring(client, FIRST)
    ring(client, SECOND)
    waited(SECOND, 25)
    assert [verb[0] for verb in asked(client, SECOND)] == ["Gather", "Record", "Say"]
    assert ("queue-left", {"why": "voicemail"}) in events(SECOND)


def test_one_key_has_the_caller_called_back_and_another_keeps_them_in_the_queue(client: Client, full: None) -> None:
    assert verbs(knock(client, f"{DOOR}/wait/0/1", about(SECOND, Digits="7"))) == ["Gather", "Redirect"]
    for _ in range(2):
        assert verbs(knock(client, f"{DOOR}/wait/0/2", about(SECOND, Digits="1"))) == ["Say", "Hangup"]
    assert CallbackRequest.objects.get().call == call(SECOND)
    assert (call(SECOND).end_reason, call(SECOND).outcome) == (EndReason.CALLBACK_PROMISED, Outcome.CALLBACK)
    assert ("queue-left", {"why": "callback_promised"}) in events(SECOND)
    assert said(asked(client, THIRD, 1))[0] == "You are number 1."


def test_another_key_leads_to_the_voicemail_at_once(client: Client, full: None) -> None:
    for _ in range(2):
        assert verbs(knock(client, f"{DOOR}/wait/0/1", about(SECOND, Digits="2"))) == ["Gather", "Record", "Say"]
    assert (call(SECOND).status, call(SECOND).commands.count()) == (Status.VOICEMAIL, 0)
    assert ("queue-left", {"why": "voicemail"}) in events(SECOND)
    assert said(asked(client, THIRD, 1))[0] == "You are number 1."


def test_the_key_for_a_message_keeps_the_caller_in_the_queue_where_there_is_no_voicemail(client: Client) -> None:
    doors.a_line(voicemail=False)
    ring(client, FIRST)
    ring(client, SECOND)
    assert verbs(knock(client, f"{DOOR}/wait/0/1", about(SECOND, Digits="2"))) == ["Gather", "Redirect"]
    assert call(SECOND).status == Status.WAITING


def test_a_caller_who_hung_up_is_in_nobodys_way(client: Client, full: None) -> None:
    knock(client, f"{DOOR}/status", about(SECOND, "completed"))
    assert (call(SECOND).end_reason, call(SECOND).outcome) == (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)
    assert ("queue-left", {"why": "caller_hung_up"}) in events(SECOND)
    over(FIRST)
    assert asked(client, THIRD)[1][0] == "Connect"
    assert verbs(knock(client, f"{DOOR}/wait/0/1", about(SECOND))) == ["Hangup"]


def test_a_caller_who_hangs_up_when_the_place_is_given_gives_it_back(client: Client, full: None) -> None:
    over(FIRST)
    asks = partial(knock, Client(), f"{DOOR}/wait/0/1", about(SECOND))
    leaves = partial(knock, Client(), f"{DOOR}/status", about(SECOND, "completed"))
    at_once([asks, leaves])
    assert call(SECOND).is_over
    assert asked(client, THIRD)[1][0] == "Connect"


def test_no_agent_is_made_for_a_caller_who_is_gone_when_their_place_was_found_free(full: None) -> None:
    over(FIRST)
    waiting = call(SECOND)
    over(SECOND)
    assert not queueing.admitted(waiting, ladder.Resume(), at=timezone.now())
    assert (call(SECOND).is_over, call(SECOND).vapi_sessions.count()) == (True, 0)


def test_a_caller_whose_line_is_dead_stops_no_queue_and_is_ended_by_the_sweep(client: Client, full: None) -> None:
    CallSession.objects.filter(call_sid=SECOND).update(last_seen_at=timezone.now() - timedelta(seconds=40))
    over(FIRST)
    assert asked(client, THIRD)[1][0] == "Connect"
    sweep.end_silent_calls(now=timezone.now(), ttl=timedelta(hours=1), twilio=AllOver("in-progress"))
    assert call(SECOND).status == Status.WAITING
    sweep.end_silent_calls(now=timezone.now(), ttl=timedelta(hours=1), twilio=AllOver("completed"))
    assert call(SECOND).end_reason == EndReason.CALLER_HUNG_UP


class AllOver:
    """Twilio, that says the same of every call."""

    def __init__(self, word: str) -> None:
        self.word = word

    def status(self, call_sid: str, account_sid: str) -> str:
        return self.word

    def hang_up(self, call_sid: str, account_sid: str) -> bool:
        return True

    def redirect(self, call_sid: str, url: str, account_sid: str) -> bool:
        return True


def test_the_agent_who_hands_a_caller_to_a_person_is_free_for_the_next_one(client: Client, full: None) -> None:
    assert services.admit_stream(call_sid=FIRST, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())
    services.stream_closed(call_sid=FIRST, epoch=0, closing=Closing("handed-over"), at=timezone.now())
    assert asked(client, SECOND)[1][0] == "Connect"


# -- when the rows are away ------------------------------------------------------------------------------------------------


def test_a_queue_whose_rows_are_away_leads_to_a_person_from_memory(client: Client, full: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("away")

    failed = about(SECOND, ErrorCode="11200", ErrorUrl=f"{PUBLIC_URL}{DOOR}/wait/0/1")
    with monkeypatch.context() as patch:
        patch.setattr("calls.evidence.hold", away)
        patch.setattr("calls.services.open_call", away)
        assert verbs(knock(client, f"{DOOR}/wait/0/1", about(SECOND))) == ["Say", "Dial"]
        assert verbs(knock(client, f"{DOOR}/fallback", failed)) == ["Say", "Dial"]
    answer = tree(knock(client, f"{DOOR}/fallback", failed))
    assert [verb[0] for verb in answer] == ["Gather", "Redirect"]
    assert answer[1][2] == f"{PUBLIC_URL}{DOOR}/wait/0/3"


def test_a_turn_that_twilio_could_not_read_leads_to_a_person_and_not_into_the_queue_again(client: Client, full: None) -> None:
    unread = about(SECOND, ErrorCode="12100", ErrorUrl=f"{PUBLIC_URL}{DOOR}/wait/0/1")
    assert verbs(knock(client, f"{DOOR}/fallback", unread)) == ["Say", "Dial"]
    assert ("queue-left", {"why": "person"}) in events(SECOND)


# -- how many --------------------------------------------------------------------------------------------------------------


def test_fifty_callers_at_once_get_the_one_free_place_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom the database lets wait too long is answered by heart, and gets an agent as if there were places: not here."""
    if "timeout" in connections.settings["default"]["OPTIONS"]:
        monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 60.0)
    monkeypatch.setattr(patience, "WHERE_A_CALLER_WAITS_S", 60.0)
    doors.a_line()
    answers = at_once([partial(ring_until_answered, f"CA{number:032d}") for number in range(50)])
    assert answers.count(["Say", "Connect", "Redirect"]) + answers.count(["Gather", "Redirect"]) == 50
    assert answers.count(["Say", "Connect", "Redirect"]) == CallSession.objects.filter(status=Status.CONNECTING).count() == 1
    assert admission.room(timezone.now()).ahead == 49


def test_as_many_as_the_limit_says_are_with_the_agent(settings: Settings) -> None:
    settings.MAX_CALLS = 3
    doors.a_line()
    opens = partial(services.open_call, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=NUMBER, at=timezone.now())
    opened = [opens(sid=call_sid()) for _ in range(5)]
    assert [each.status for each in opened if each] == [Status.CONNECTING] * 3 + [Status.WAITING] * 2
    assert AgentPlace.objects.count() == 3


def test_where_the_limit_has_become_smaller_those_who_come_at_once_want_the_places_below_it() -> None:
    room = admission.Room(most=2, places={0: None, 1: 5, 2: 3, 3: 1}, ahead=0)
    assert room.has_place
    assert room.free(below=2) == [(1, 5)]


def test_a_call_that_fell_silent_long_ago_holds_no_place() -> None:
    silent = a_call(status=Status.STREAMING)
    assert not admission.room(timezone.now()).has_place
    CallSession.objects.filter(pk=silent.pk).update(last_seen_at=timezone.now() - admission.ALIVE_WITHIN)
    assert admission.room(timezone.now()).has_place


def test_what_vapi_refuses_for_want_of_lines_is_the_limit_for_a_minute(settings: Settings) -> None:
    settings.MAX_CALLS = 5
    now = timezone.now()
    for client in (FakeVapi(), FakeVapi(), FakeVapi(problem=VapiRefused("Full.", status=400, limit="lines"))):
        sessions.start_conversation(vapi_session_pk=session_of(a_call()).pk, by="worker", client=client)
    later = timezone.now() + admission.BELIEVED_FOR
    assert admission.room(timezone.now()).most == 2
    assert admission.room(later + admission.ONE_MORE_EVERY).most == 3
    assert admission.room(later + 3 * admission.ONE_MORE_EVERY).most == admission.room(later + timedelta(days=1)).most == 5
    assert admission.room(now - timedelta(hours=1)).most == 5


def test_a_session_that_ended_for_want_of_lines_tells_the_limit_too(settings: Settings) -> None:
    settings.MAX_CALLS = 5
    calls = [a_call(), a_call()]
    for each in calls:
        sessions.start_conversation(vapi_session_pk=session_of(each).pk, by="worker", client=FakeVapi())
    raw = "call.start.error-subscription-concurrency-limit-reached"
    sessions.session_ended(vapi_call_id=session_of(calls[0]).vapi_call_id or "", at=timezone.now(), raw=raw)
    assert admission.room(timezone.now()).most == 1


def test_an_account_that_carries_more_than_it_said_is_believed_at_once(settings: Settings) -> None:
    settings.MAX_CALLS = 5
    first, second, now = session_of(a_call()), session_of(a_call()), timezone.now()
    admission.lines_are_busy("main", at=now, besides=first.pk)
    sessions.start_conversation(vapi_session_pk=first.pk, by="worker", client=FakeVapi())
    assert admission.room(now).most == 1
    sessions.start_conversation(vapi_session_pk=second.pk, by="worker", client=FakeVapi())
    assert admission.room(now).most == 5


def test_a_limit_that_is_told_while_the_one_before_is_forgotten_stays(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MAX_CALLS = 5
    sessions_of_both, now = [session_of(a_call()) for _ in range(2)], timezone.now()
    for session in sessions_of_both:
        sessions.start_conversation(vapi_session_pk=session.pk, by="worker", client=FakeVapi())
    admission.lines_are_busy("main", at=now, besides=sessions_of_both[0].pk)
    counts = admission._open_at

    def told_meanwhile(name: str) -> QuerySet[VapiSession]:
        LineLimit.objects.update(told_at=now + timedelta(seconds=1))
        return counts(name)

    with monkeypatch.context() as patch:
        patch.setattr(admission, "_open_at", told_meanwhile)
        admission.has_lines("main")
    assert admission.room(now).most == 1
    admission.has_lines("main")
    assert admission.room(now).most == 5


def test_a_place_is_free_when_vapi_has_let_go_of_its_call(client: Client, full: None) -> None:
    sessions.start_conversation(vapi_session_pk=session_of(call(FIRST)).pk, by="worker", client=FakeVapi())
    over(FIRST)
    assert said(asked(client, SECOND)) == ["Please stay on the line."]
    sessions.end_session(pk=session_of(call(FIRST)).pk, client=FakeVapi(), at=timezone.now())
    assert asked(client, SECOND, 2)[1][0] == "Connect"


def test_a_line_that_vapi_does_not_let_go_of_keeps_nobody_waiting_for_ever() -> None:
    gone = a_call()
    sessions.start_conversation(vapi_session_pk=session_of(gone).pk, by="worker", client=FakeVapi())
    over(gone.call_sid)
    assert not admission.room(timezone.now()).has_place
    CallSession.objects.filter(pk=gone.pk).update(last_seen_at=timezone.now() - admission.LET_GO_WITHIN)
    assert admission.room(timezone.now()).has_place


def test_with_a_backup_what_it_carries_counts_too(settings: Settings) -> None:
    settings.MAX_CALLS, settings.VAPI_BACKUP_API_KEY = 9, "another"
    talking, now = a_call(), timezone.now()
    admission.lines_are_busy("main", at=now, besides=session_of(talking).pk)
    assert admission.room(now).most == 9
    admission.lines_are_busy("backup", at=now, besides=session_of(talking).pk)
    assert admission.room(now).most == 2


def test_an_account_without_a_free_line_is_no_account_in_trouble(client: Client, settings: Settings) -> None:
    settings.MAX_CALLS = 5
    doors.a_line()
    assert "Connect" in ring(client, FIRST)
    sessions.start_conversation(vapi_session_pk=session_of(call(FIRST)).pk, by="worker", client=FakeVapi())
    assert "Connect" in ring(client, SECOND)
    full = FakeVapi(problem=VapiUnavailable("Vapi's line limit is reached.", status=201, sent=True, limit="lines"))
    sessions.start_conversation(vapi_session_pk=session_of(call(SECOND)).pk, by="worker", client=full)
    over(SECOND)
    assert not breaker.opened()
    assert ring(client, THIRD) == ["Gather", "Redirect"]
    over(FIRST)
    sessions.end_session(pk=session_of(call(FIRST)).pk, client=FakeVapi(), at=timezone.now())
    assert asked(client, THIRD)[1][0] == "Connect"


def test_a_caller_whom_the_agent_takes_back_has_a_place_again_and_only_one() -> None:
    talking = a_call()
    CallSession.objects.update(status=Status.TRANSFERRING)
    assert a_call().vapi_sessions.exists()
    CallSession.objects.filter(pk=talking.pk).update(status=Status.CONNECTING)
    admission.take_again(talking, at=timezone.now())
    now = admission.room(timezone.now())
    assert (now.taken, AgentPlace.objects.filter(call=talking).count(), now.has_place) == (2, 1, False)


def test_a_caller_who_comes_back_to_a_place_that_nobody_took_meanwhile_has_one_place() -> None:
    talking = a_call()
    CallSession.objects.update(status=Status.TRANSFERRING)
    assert admission.room(timezone.now()).has_place
    CallSession.objects.update(status=Status.CONNECTING)
    admission.take_again(talking, at=timezone.now())
    assert (admission.room(timezone.now()).taken, AgentPlace.objects.filter(call=talking).count()) == (1, 1)


def test_a_place_that_was_given_before_costs_a_query_and_a_write(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    talking = a_call()
    CallSession.objects.update(status=Status.TRANSFERRING)
    with django_assert_num_queries(2):
        assert admission.take(talking, at=timezone.now())


def test_a_turn_in_the_queue_costs_few_queries(client: Client, full: None, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_max_num_queries(14):  # the begin and the end of the transaction are two of them
        asked(client, SECOND)
