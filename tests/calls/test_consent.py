"""Who is recorded: nobody before they were told, nobody who did not agree where the line asks, nobody who says no."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines
from agents.models import PhoneLine
from bridge.errors import TwilioUnavailable
from calls import consent, services, sessions
from calls.console.headline import consent_words, kept_words
from calls.models import (
    CallEvent,
    CallSession,
    EndReason,
    InboxMessage,
    OutboxCommand,
    Recording,
    RecordingKind,
    TranscriptLine,
    VapiSession,
    VapiState,
    VendorErasure,
)
from tests.builders import a_call
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, PUBLIC_URL, SECRET, TOKEN, Remembering, a_line, incoming, knock, tree, verbs

pytestmark = pytest.mark.django_db(transaction=True)

DOOR = "/webhook/twilio"
TOLD = "An AI agent answers, and this call may be recorded."
VAPI_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"
RECORDING = "RE" + "d" * 32


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = PUBLIC_URL, [TOKEN], "tests"
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]
    lines.forget()


@pytest.fixture(autouse=True)
def published() -> Iterator[Remembering]:
    with doors.remembering() as remembered:
        yield remembered


def asking_line(**fields: Any) -> PhoneLine:
    asks: dict[str, Any] = {"disclosure": TOLD, "record_calls": True, "all_party_consent": True} | fields
    return a_line(**asks)


def presses(client: Client, key: str, **more: str) -> Any:
    about = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "CallStatus": "in-progress"}
    return knock(client, f"{DOOR}/consent/0", about | {"Digits": key} | more)


def records(answer: Any) -> bool:
    return "Start" in verbs(answer)


def test_the_announcement_is_stamped_with_its_time_and_the_mark_of_its_text(client: Client) -> None:
    a_line(disclosure=TOLD)
    knock(client, DOOR, incoming())
    call = CallSession.objects.get()
    assert (call.disclosed_at, call.disclosure_mark) == (call.started_at, hashlib.sha256(TOLD.encode()).hexdigest())
    assert consent_words(call) == f"Told (text {call.disclosure_mark[:8]})"


def test_a_line_without_an_announcement_stamps_nothing(client: Client) -> None:
    a_line(disclosure="")
    knock(client, DOOR, incoming())
    assert CallSession.objects.values_list("disclosed_at", "disclosure_mark").get() == (None, "")


def test_where_everybody_is_asked_nothing_is_recorded_before_the_yes(client: Client) -> None:
    asking_line()
    answer = knock(client, DOOR, incoming())
    said, asked, _, _ = tree(answer)
    assert verbs(answer) == ["Say", "Gather", "Connect", "Redirect"]
    assert said[2] == TOLD
    assert (asked[1]["action"], asked[1]["numDigits"], asked[1]["timeout"]) == (f"{PUBLIC_URL}{DOOR}/consent/0", "1", "1")
    assert "press 1" in asked[3][2]


def test_a_caller_who_presses_1_is_recorded_and_the_moment_is_stamped(client: Client) -> None:
    asking_line()
    knock(client, DOOR, incoming())
    answer = presses(client, "1")
    assert verbs(answer) == ["Start", "Connect", "Redirect"], "and is not told and asked once more"
    first = CallSession.objects.get().agreed_at
    assert first is not None
    assert presses(client, "1").content == answer.content, "a repeat gets the same answer"
    assert CallSession.objects.get().agreed_at == first
    assert CallEvent.objects.filter(kind="recording-agreed").count() == 1


@pytest.mark.parametrize("key", ["2", "*", "#", "0", ""])
def test_any_other_key_leads_to_the_agent_unrecorded(client: Client, key: str) -> None:
    asking_line()
    knock(client, DOOR, incoming())
    assert verbs(presses(client, key)) == ["Connect", "Redirect"]
    assert CallSession.objects.get().agreed_at is None


def test_which_key_was_pressed_is_stored_nowhere(client: Client) -> None:
    asking_line()
    knock(client, DOOR, incoming())
    presses(client, "7")
    assert not InboxMessage.objects.exists()
    assert not [detail for detail in CallEvent.objects.values_list("detail", flat=True) if "7" in json.dumps(detail)]


def test_a_question_that_twilio_could_not_get_answered_is_a_no_and_the_call_goes_on(client: Client) -> None:
    asking_line()
    knock(client, DOOR, incoming())
    failed = {"ErrorCode": "11200", "ErrorUrl": f"{PUBLIC_URL}{DOOR}/consent/0"}
    answer = knock(client, f"{DOOR}/fallback", incoming(CallStatus="in-progress") | failed)
    assert verbs(answer) == ["Connect", "Redirect"]


def test_a_line_that_asks_nobody_records_after_the_announcement(client: Client) -> None:
    asking_line(all_party_consent=False)
    assert verbs(knock(client, DOOR, incoming())) == ["Say", "Start", "Connect", "Redirect"]


def test_who_leaves_while_being_asked_is_gone(client: Client) -> None:
    asking_line()
    knock(client, DOOR, incoming())
    assert verbs(presses(client, "1", CallStatus="completed")) == ["Hangup"]
    assert CallSession.objects.get().agreed_at is None


# -- do not record -----------------------------------------------------------------------------------------------------


class Agent:
    """Vapi's side of a call that is on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ms = 1_790_000_000_000
        knock(client, DOOR, incoming())
        VapiSession.objects.update(state=VapiState.LIVE, vapi_call_id=VAPI_ID, live_at=timezone.now())

    def tells(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._ms += 5000
        message = {"type": kind, "timestamp": self._ms, "call": {"id": VAPI_ID, "name": f"{CALL_SID}.0"}, **fields}
        headers = {"X-Vapi-Secret": SECRET}
        answer = self._client.post("/webhook/vapi", data=json.dumps({"message": message}), content_type="application/json", headers=headers)
        told: dict[str, Any] = answer.json()
        return told

    def hears(self, text: str) -> None:
        self.tells("transcript", role="user", transcriptType="final", transcript=text)

    def uses_do_not_record(self, name: str = "tc-1") -> str:
        told = self.tells("tool-calls", toolCallList=[{"id": name, "function": {"name": "do_not_record", "arguments": {}}}])
        return str(told["results"][0].get("result", ""))


@pytest.fixture
def agent(client: Client) -> Agent:
    asking_line(all_party_consent=False)
    return Agent(client)


def recorded(client: Client, status: str, *, kind: str = "call") -> None:
    about = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "RecordingSid": RECORDING, "RecordingDuration": "9"}
    knock(client, f"{DOOR}/recording/{kind}", about | {"RecordingStatus": status})


def test_a_caller_who_says_no_is_not_written_down_from_there_on_and_what_was_said_before_goes_at_the_end(
    agent: Agent, client: Client
) -> None:
    agent.hears("my first secret")
    assert "Recording is off" in agent.uses_do_not_record()
    call = CallSession.objects.get()
    assert call.unrecorded_at is not None
    agent.hears("my second secret")
    assert not TranscriptLine.everything.filter(said__contains="second").exists()
    assert not [body for body in InboxMessage.objects.values_list("body", flat=True) if "second" in json.dumps(body)]
    assert TranscriptLine.everything.filter(said__contains="first").exists(), "the call is on, and those who watch it see why"
    services.end_call(call_sid=CALL_SID, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    agent.tells("end-of-call-report", endedReason="x", artifact={"messages": [{"role": "user", "message": "my third secret", "time": 1}]})
    assert not TranscriptLine.everything.exists()
    assert not [body for body in InboxMessage.objects.values_list("body", flat=True) if "secret" in json.dumps(body)]
    assert not [detail for detail in CallEvent.objects.values_list("detail", flat=True) if "secret" in json.dumps(detail)]
    call.refresh_from_db()
    assert call.from_number == CALLER, "who called is not what was said"
    assert kept_words(call) == "The caller asked not to be recorded. Nothing they said is kept."
    assert VendorErasure.objects.get(kind=VendorErasure.Kind.VAPI_CALL).vendor_id == VAPI_ID


class Twilio:
    """Remembers which calls were to be recorded no more."""

    def __init__(self) -> None:
        self.stopped: list[tuple[str, str]] = []
        self.is_away = False

    def stop_recording(self, call_sid: str, account_sid: str) -> bool:
        if self.is_away:
            raise TwilioUnavailable("Twilio cannot be reached.")
        self.stopped.append((call_sid, account_sid))
        return True


def test_the_recording_is_stopped_once_and_deleted_when_it_is_ready(agent: Agent, client: Client, published: Remembering) -> None:
    recorded(client, "in-progress")
    agent.uses_do_not_record()
    assert ("stop_recordings", (CALL_SID,)) in published.tasks
    twilio = Twilio()
    twilio.is_away = True
    assert consent.stop_recordings(twilio=twilio, now=timezone.now()) == 0, "it stays to be done"
    twilio.is_away = False
    assert consent.stop_recordings(twilio=twilio, now=timezone.now(), call_sid=CALL_SID) == 1
    assert consent.stop_recordings(twilio=twilio, now=timezone.now()) == 0
    assert twilio.stopped == [(CALL_SID, ACCOUNT_SID)]
    assert not VendorErasure.objects.exists(), "what is being made cannot be deleted yet"
    recorded(client, "completed")
    assert VendorErasure.objects.get().vendor_id == RECORDING
    assert Recording.objects.get().erased_at is not None


def test_a_twilio_that_stops_recordings_slowly_does_not_hold_a_sweep_and_the_newest_come_first() -> None:
    calls = [a_call() for _ in range(3)]
    for minutes, call in enumerate(calls):
        consent.stop_soon(call=call, at=timezone.now() - timedelta(minutes=minutes))
    seconds, twilio = count(0, 5), Twilio()
    for stopped in (1, 2, 3):
        assert consent.stop_recordings(twilio=twilio, now=timezone.now(), clock=lambda: float(next(seconds))) == 1
        assert [call_sid for call_sid, _ in twilio.stopped] == [call.call_sid for call in calls[:stopped]]


def test_saying_no_twice_is_saying_it_once(agent: Agent) -> None:
    assert agent.uses_do_not_record("tc-1") == agent.uses_do_not_record("tc-2")
    assert OutboxCommand.objects.filter(verb=consent.STOP_RECORDING).count() == 1
    assert CallEvent.objects.filter(kind="recording-refused").count() == 1


def test_a_message_that_such_a_caller_leaves_on_purpose_is_kept(agent: Agent, client: Client) -> None:
    agent.uses_do_not_record()
    recorded(client, "completed", kind="voicemail")
    services.end_call(call_sid=CALL_SID, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    VapiSession.objects.update(ended_at=timezone.now(), report_at=timezone.now())
    assert sessions.finalise(call_sid=CALL_SID)
    assert Recording.objects.get(kind=RecordingKind.VOICEMAIL).erased_at is None


def test_who_refused_is_never_recorded_again_in_the_same_call(agent: Agent, client: Client) -> None:
    agent.uses_do_not_record()
    assert not records(knock(client, DOOR, incoming(CallStatus="in-progress")))


def test_a_colleague_is_not_told_what_a_caller_said_who_wants_nothing_written_down(agent: Agent) -> None:
    agent.uses_do_not_record()
    asked = {"reason": "a secret", "summary": "a secret", "target": "tier2"}
    agent.tells("tool-calls", toolCallList=[{"id": "tc-9", "function": {"name": "transfer_to_human", "arguments": asked}}])
    assert OutboxCommand.objects.get(verb="hand-over").detail == {"target": "tier2"}
