"""Each secret is rotated while a call is on: both are configured for a while, and nothing that began under the old one is dropped."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from twilio.request_validator import RequestValidator

from agents import account, lines, signing
from bridge import stream_token
from bridge.ports import Admission
from bridge.twilio_http import TwilioProof
from calls import services, sessions, twilio_account
from calls.ledger import DatabaseLedger
from calls.models import CallSession, Status
from tests.builders import FakeVapi, a_person
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, NUMBER, PUBLIC_URL, a_line, incoming, knock, signature, tree
from tests.calls.vapi_house import vapi_house

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = "old-" + "o" * 40, "new-" + "n" * 40
MEDIA = "/webhook/twilio/media"


def configure(settings: Any, *known: str) -> None:
    """Every secret with these values, the newest first."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = known[0], list(known[1:])
    settings.TWILIO_AUTH_TOKENS = settings.VAPI_WEBHOOK_SECRETS = list(known)
    settings.VAPI_API_KEY = settings.TOOL_SIGNING_SECRET = known[0]


@pytest.fixture(autouse=True)
def under_the_old_secrets(settings: Any) -> Iterator[None]:
    settings.PUBLIC_URL, settings.TWILIO_ACCOUNT_SID = PUBLIC_URL, ACCOUNT_SID
    configure(settings, OLD)
    lines.forget()
    with doors.remembering():
        yield


def twilio(client: Client, door: str, fields: dict[str, str], *, token: str) -> Any:
    body = QueryDict(mutable=True)
    body.update(fields)
    return knock(client, f"/webhook/twilio{door}", fields, **{"X-Twilio-Signature": signature(f"/webhook/twilio{door}", body, token=token)})


def vapi(client: Client, secret: str) -> int:
    message = {"message": {"type": "hang", "call": {"id": "v", "name": f"{CALL_SID}.1"}}}
    return client.post("/webhook/vapi", json.dumps(message), content_type="application/json", headers={"X-Vapi-Secret": secret}).status_code


def admit(settings: Any, token: str) -> Admission | None:
    """As `supportvoice.asgi` configures the door of streams."""
    former = [stream_token.key_from(key) for key in settings.SECRET_KEY_FALLBACKS]
    ledger = DatabaseLedger(token_key=stream_token.key_from(settings.SECRET_KEY), former_keys=former, client=FakeVapi(), deadline_s=5.0)
    try:
        return asyncio.run(ledger.admit(call_sid=CALL_SID, account_sid=ACCOUNT_SID, stream_sid="MZ1", token=token))
    finally:
        ledger.close()


def upgrade_is_proven(settings: Any, token: str) -> bool:
    signed = RequestValidator(token).compute_signature(PUBLIC_URL.replace("https", "wss") + MEDIA, {})
    proof = TwilioProof(public_url=PUBLIC_URL, tokens=settings.TWILIO_AUTH_TOKENS)
    return proof(path=MEDIA, headers={b"x-twilio-signature": signed.encode()})


def test_a_call_goes_on_while_every_secret_is_rotated(client: Client, settings: Any) -> None:
    a_line()
    connect = tree(twilio(client, "", incoming(), token=OLD))[1]
    stream_token_of_old = connect[3][3][1]["value"]
    about = {key: incoming()[key] for key in ("CallSid", "AccountSid", "From", "To")}
    configure(settings, NEW, OLD)
    assert upgrade_is_proven(settings, OLD)
    assert upgrade_is_proven(settings, NEW)
    assert admit(settings, stream_token_of_old) is not None, "the stream opens with the token of before"
    assert CallSession.objects.get().status == Status.STREAMING
    assert (vapi(client, OLD), vapi(client, NEW)) == (200, 200), "the call's agent shows what it was given when it began"
    for token in (OLD, NEW):
        assert twilio(client, "/status", {**about, "CallStatus": "in-progress"}, token=token).status_code == 200
    assert twilio(client, "/resume/0", {**about, "CallStatus": "in-progress"}, token=OLD).status_code == 200
    assert twilio(client, "/status", {**about, "CallStatus": "completed"}, token=NEW).status_code == 200
    assert CallSession.objects.get().ended_at is not None


def test_what_we_send_carries_the_new_secret_at_once(settings: Any) -> None:
    before = account.client(), twilio_account.client()
    configure(settings, NEW, OLD)
    assert account.server().secret == NEW, "each call is created with it, whenever its agent was prepared"
    assert signing.secret_of({}) == NEW
    assert account.client() is not before[0]
    assert twilio_account.client() is not before[1]


def test_a_call_at_the_backup_account_is_ended_after_its_key_was_rotated_and_the_next_one_is_made_with_the_new_key(settings: Any) -> None:
    a_line()
    with vapi_house() as backup:
        settings.VAPI_BACKUP_BASE_URL, settings.VAPI_BACKUP_API_KEY, backup.vapi.api_key = backup.vapi.base_url, OLD, OLD
        before, now = at_the_backup(CALL_SID), timezone.now()
        assert sessions.start_conversation(vapi_session_pk=before, by="worker", client=account.client(account.BACKUP))
        settings.VAPI_BACKUP_API_KEY = backup.vapi.api_key = NEW  # Vapi knows the old one no more
        after = at_the_backup("CA" + "b" * 32)
        assert sessions.start_conversation(vapi_session_pk=after, by="worker", client=account.client(account.BACKUP))
        assert account.keys() == {"main": OLD, "backup": NEW}, (
            "whoever opens a socket there shows the new one, and the main one's is its own"
        )
        assert sessions.end_session(pk=before, client=account.client(sessions.account_of(pk=before)), at=now)
        assert [bool(call.open) for sid in (CALL_SID, "CA" + "b" * 32) for call in backup.of(sid)] == [False, True]


def at_the_backup(call_sid: str) -> int:
    """A call whose agent is to be had at the backup account; its session."""
    call = services.open_call(sid=call_sid, account_sid=ACCOUNT_SID, from_number=doors.CALLER, to_number=NUMBER, at=timezone.now())
    assert call is not None
    call.vapi_sessions.update(account=account.BACKUP)
    return call.vapi_sessions.get().pk


def test_new_calls_need_nothing_of_the_old_one(client: Client, settings: Any) -> None:
    a_line()
    configure(settings, NEW, OLD)
    connect = tree(twilio(client, "", incoming(), token=NEW))[1]
    configure(settings, NEW)
    assert admit(settings, connect[3][3][1]["value"]) is not None


def test_the_old_one_opens_nothing_once_it_is_gone(client: Client, settings: Any) -> None:
    a_line()
    connect = tree(twilio(client, "", incoming(), token=OLD))[1]
    configure(settings, NEW)
    assert admit(settings, connect[3][3][1]["value"]) is None
    assert not upgrade_is_proven(settings, OLD)
    assert vapi(client, OLD) == 403
    assert twilio(client, "/resume/0", incoming(), token=OLD).status_code == 403


def test_people_stay_logged_in_while_the_key_is_rotated(client: Client, settings: Any) -> None:
    a_person("ops", "olga", password="a-password-1")
    client.post("/login/", {"username": "olga", "password": "a-password-1"})
    configure(settings, NEW, OLD)
    assert client.get("/").status_code == 200
    configure(settings, NEW)
    assert client.get("/").status_code == 200, "and one page in between is enough for them to stay"


IN_A_SERVER = """
import asyncio, sys, time
from supportvoice import asgi
from bridge import stream_token
from bridge.ports import LedgerAway

def is_let_through(secret):
    token = stream_token.issue(key=stream_token.key_from(secret), call_sid="CA", epoch=0, expires=int(time.time()) + 60)
    try:
        return asyncio.run(asgi.ledger.admit(call_sid="CA", account_sid="AC", stream_sid="MZ", token=token)) is not None
    except LedgerAway:  # the token was good, and there is no database here
        return True

print([is_let_through(secret) for secret in sys.argv[1:]])
"""


def test_a_server_believes_the_tokens_of_its_former_keys() -> None:
    env = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": f"{OLD},older-{OLD}", "DATABASE_URL": "sqlite:////nonexistent/db.sqlite3"}
    command = [sys.executable, "-c", IN_A_SERVER, NEW, OLD, f"older-{OLD}", "forged"]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "[True, True, True, False]\n", done.stderr


def test_a_token_is_good_for_its_time_under_any_key() -> None:
    token = stream_token.issue(key=b"old", call_sid=CALL_SID, epoch=3, expires=int(time.time()) + 60)
    assert stream_token.check(key=b"new", former=[b"older", b"old"], token=token, call_sid=CALL_SID, now=time.time()) == 3
