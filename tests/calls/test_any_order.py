"""Twilio's callbacks in every order, twice and not at all: a call always ends as it did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines
from bridge.ports import Closing
from calls import services
from calls.models import CallSession, Status
from tests.builders import at_once
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, NUMBER, PUBLIC_URL, TOKEN, a_line, incoming, knock, verbs

pytestmark = pytest.mark.django_db

DOOR = "/webhook/twilio"
PATHS = {
    "/twilio/voice/": DOOR,
    "/twilio/fallback/": f"{DOOR}/fallback",
    "/twilio/call-status/": f"{DOOR}/status",
    "/twilio/recording/": f"{DOOR}/recording/call",
    "/twilio/stream-status/": f"{DOOR}/stream",
    "/twilio/after-stream/": f"{DOOR}/resume/0",
    "/twilio/dial-result/": f"{DOOR}/dial/0/tier2",
    "/twilio/whisper/": f"{DOOR}/whisper/tier2",
    "/twilio/voicemail-done/": f"{DOOR}/voicemail/0",
}
News = tuple[str, dict[str, str]]  # a door below /webhook/twilio, and what it is told


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> Iterator[None]:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = PUBLIC_URL, [TOKEN], "tests"
    lines.forget()
    with doors.remembering():
        yield


def about(status: str = "in-progress", **more: str) -> dict[str, str]:
    return {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "From": CALLER, "To": NUMBER, "CallStatus": status, **more}


def leg(status: str) -> News:
    return "/leg/tier2", about(status) | {"CallSid": "CA" + "b" * 32, "ParentCallSid": CALL_SID}


def stream_opened() -> None:
    services.admit_stream(call_sid=CALL_SID, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())


def stream_over(why: str) -> None:
    services.stream_closed(call_sid=CALL_SID, epoch=0, closing=Closing(why=why), at=timezone.now())


def how_it_stands(of: CallSession | None = None) -> str:
    """All the rows of the call that a door looks at, without times: none of it may depend on the order of news."""
    call = of or CallSession.objects.get()
    events = call.events.filter(source="twilio").values_list("kind", "detail")
    rows = {
        "call": [call.status, call.end_reason, call.outcome, call.rung, call.closed_why, call.stream_epoch],
        "recordings": sorted(call.recordings.values_list("sid", "kind", "state", "seconds")),
        "callbacks": int(hasattr(call, "callback")),
        "commands": sorted((command.key, command.done_at is not None, command.problem) for command in call.commands.all()),
        "ended": call.events.filter(kind="call-ended").count(),
        "told": sorted((kind, detail.get("target", ""), detail.get("status", "")) for kind, detail in events),
    }
    return json.dumps(rows)


# -- every permutation of the last six ---------------------------------------------------------------------------------

STOPPED: News = ("/stream", {**about(), "StreamEvent": "stream-stopped"})
OVER: News = ("/status", about("completed", CallDuration="97", SequenceNumber="0"))
RE = {"RecordingSid": "RE" + "d" * 32, "RecordingDuration": "14"}
SOUND = {**about(), **RE, "RecordingStatus": "completed"}

LAST_SIX: dict[str, tuple[tuple[News, ...], dict[str, Any]]] = {
    "a talk": (
        (
            STOPPED,
            ("/dial/0/tier2", about(DialCallStatus="completed", DialBridged="true")),
            leg("completed"),
            ("/recording/call", SOUND),
            OVER,
            OVER,
        ),
        {
            "call": ["ended", "human_ended", "handed_over", "R3", "handed-over", 0],
            "recordings": [[RE["RecordingSid"], "call", "completed", 14]],
            "callbacks": 0,
        },
    ),
    "a message": (
        (
            ("/dial/0/tier2", about(DialCallStatus="no-answer", DialBridged="false")),
            leg("no-answer"),
            ("/voicemail/0", about("completed", Digits="hangup", **RE)),
            ("/recording/voicemail", SOUND),
            OVER,
            OVER,
        ),
        {
            "call": ["ended", "voicemail_left", "voicemail", "R4", "handed-over", 0],
            "recordings": [[RE["RecordingSid"], "voicemail", "completed", 14]],
            "callbacks": 1,
        },
    ),
    "a promise": (
        (
            ("/dial/0/tier2", about(DialCallStatus="completed", DialBridged="false")),
            leg("in-progress"),
            leg("completed"),
            ("/callback/0", about(Digits="1")),
            OVER,
            OVER,
        ),
        {"call": ["ended", "callback_promised", "callback", "R4", "no-agent", 0], "recordings": [], "callbacks": 1},
    ),
    "nobody waited": (
        (STOPPED, leg("ringing"), leg("canceled"), ("/dial/0/tier2", about("completed", DialCallStatus="canceled")), OVER, OVER),
        {"call": ["ended", "caller_hung_up", "abandoned", "R3", "handed-over", 0], "recordings": [], "callbacks": 0},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LAST_SIX)
def test_the_last_six_news_of_a_call_end_it_alike_in_all_their_720_orders(client: Client, name: str) -> None:
    news, expected = LAST_SIX[name]
    _with_a_person(client, expected["call"][4])
    ((end, orders),) = _ends(client, news, {}).items()
    assert orders == 720
    stands = json.loads(end)
    assert stands["call"] == expected["call"]
    assert stands["recordings"] == expected["recordings"]
    assert stands["callbacks"] == expected["callbacks"]
    assert stands["ended"] == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", LAST_SIX)
def test_the_last_six_news_may_come_at_the_same_moment(client: Client, name: str) -> None:
    news, expected = LAST_SIX[name]
    _with_a_person(client, expected["call"][4])
    answers = at_once([partial(knock, Client(), f"{DOOR}{door}", fields) for door, fields in news])
    assert {answer.status_code for answer in answers} == {200}
    stands = json.loads(how_it_stands())
    assert (stands["call"], stands["callbacks"], stands["ended"]) == (expected["call"], expected["callbacks"], 1)


def _with_a_person(client: Client, why: str) -> None:
    """The agent handed over, or there is none to have the caller back, and a person is being rung."""
    a_line(record_calls=True)
    knock(client, DOOR, incoming())
    stream_opened()
    stream_over(why)
    assert verbs(knock(client, f"{DOOR}/resume/0", about())) == ["Say", "Dial"]


def _ends(client: Client, news: tuple[News, ...], seen: dict[str, Counter[str]]) -> Counter[str]:
    """How the call stands after all orders of the news, and after how many of them it does.

    Each order is played from where it parts from the one before. Where two orders of the same news have led to the same
    rows, what follows is the same too and is played once.
    """
    if not news:
        return Counter([how_it_stands()])
    here = f"{sorted(map(str, news))} {how_it_stands()}"
    if here not in seen:
        seen[here] = Counter()
        for place, (door, fields) in enumerate(news):
            fork = transaction.savepoint()
            assert knock(client, f"{DOOR}{door}", fields).status_code == 200
            seen[here].update(_ends(client, (*news[:place], *news[place + 1 :]), seen))
            transaction.savepoint_rollback(fork)
    return seen[here]


# -- whole calls, as recorded ------------------------------------------------------------------------------------------

#: what the bridge says of the stream before Twilio asks on; how the call stands after the sequence; the last verb answered to it
SEQUENCES: dict[str, tuple[str, str, str, str]] = {
    "normal_call": ("caller-left", Status.ENDED, "caller_hung_up", "Connect"),
    "assistant_ends_call": ("agent-ended", Status.ENDED, "agent_ended", "Hangup"),
    "caller_hangs_up_before_stream": ("", Status.ENDED, "caller_hung_up", "Connect"),
    "caller_hangs_up_early": ("", Status.ENDED, "caller_hung_up", "Connect"),
    "duplicates_and_reordering": ("", Status.STREAMING, "", "Connect"),
    "fallback_request": ("", Status.TRANSFERRING, "", "Dial"),
    "recording_status": ("", Status.CONNECTING, "", ""),
    "stream_error_handshake": ("", Status.CONNECTING, "", "Connect"),
    "stream_error_midcall": ("", Status.CONNECTING, "", "Connect"),
    "transfer_answered": ("handed-over", Status.ENDED, "human_ended", "Hangup"),
    "transfer_busy": ("handed-over", Status.CONNECTING, "", "Connect"),
    "transfer_failed": ("handed-over", Status.CONNECTING, "", "Connect"),
    "transfer_no_answer": ("handed-over", Status.CONNECTING, "", "Connect"),
    "transfer_caller_gives_up": ("handed-over", Status.ENDED, "caller_hung_up", "Dial"),
    "voicemail_done": ("", Status.ENDED, "voicemail_left", "Hangup"),
}


def recorded(name: str) -> list[dict[str, Any]]:
    sequence = json.loads((doors.WIRE / "twilio" / "callbacks" / f"{name}.json").read_text())
    events: list[dict[str, Any]] = sequence["events"] if isinstance(sequence, dict) else sequence
    return events


def played(client: Client, name: str, events: Sequence[dict[str, Any]], times: int = 1) -> list[HttpResponse]:
    """Knock as recorded; the bridge says its word on the stream when it would."""
    answers: list[HttpResponse] = []
    for event in events:
        path = PATHS[event["path"].partition("?")[0]]
        if event["params"].get("StreamEvent") == "stream-started":
            stream_opened()
        if SEQUENCES[name][0] and (event["params"].get("StreamEvent") == "stream-stopped" or path.endswith("resume/0")):
            stream_over(SEQUENCES[name][0])
        answers += [knock(client, path, event["params"]) for _ in range(times)]
    return answers


def answered(client: Client, name: str) -> None:
    a_line()
    knock(client, DOOR, incoming())
    if name == "voicemail_done":
        CallSession.objects.update(status=Status.VOICEMAIL)


def test_every_recorded_sequence_is_played() -> None:
    assert {path.stem for path in (doors.WIRE / "twilio" / "callbacks").glob("*.json")} == set(SEQUENCES)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "everything twice"])
def test_a_recorded_call_ends_as_it_did(client: Client, name: str, times: int) -> None:
    _, status, reason, last_verb = SEQUENCES[name]
    answered(client, name)
    answers = played(client, name, recorded(name), times)
    call = CallSession.objects.get()
    assert {answer.status_code for answer in answers} == {200}
    assert (call.status, call.end_reason) == (status, reason)
    spoken = [verb for answer in answers for verb in verbs(answer) if verb != "Redirect"]
    assert (spoken[-1] if spoken else "") == last_verb
    assert call.events.filter(kind="call-ended").count() == (1 if call.is_over else 0)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("seed", range(4))
def test_a_recorded_call_in_any_order_with_pieces_missing_and_doubled_breaks_nothing(client: Client, name: str, seed: int) -> None:
    """No door fails, no state is left by a way that is not there (the fixture of all tests looks), nothing ends twice."""
    rng, events = Random(f"{name} {seed}"), recorded(name)
    news = [event for event in events for _ in range(rng.choice((0, 1, 1, 2)))]
    rng.shuffle(news)
    answered(client, name)
    answers = played(client, name, news)
    for end in (partial(knock, client, f"{DOOR}/status", about("completed")),) * 2:
        answers.append(end())
    call = CallSession.objects.get()
    assert {answer.status_code for answer in answers} == {200}
    assert (call.status, call.events.filter(kind="call-ended").count()) == (Status.ENDED, 1)
