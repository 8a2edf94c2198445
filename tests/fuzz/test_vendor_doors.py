"""What Twilio's and Vapi's HTTP doors do with bad forms and bodies that carry a right proof: 4xx or 200, and no wrong row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey, Model
from django.http import QueryDict
from django.test import Client
from django.urls import get_resolver

from calls.models import CallbackRequest, CallEvent, CallSession, InboxMessage, Recording, ToolRun, TranscriptLine
from calls.webhooks.knock import CALL_SID as RIGHT_SID
from tests.builders import a_call
from tests.calls.doors import CALL_SID, FORM, NUMBER, PUBLIC_URL, SECRET, TOKEN, a_line, incoming, signature
from tests.fuzz.conftest import Cases

pytestmark = pytest.mark.django_db
WIRE = Path(__file__).parents[1] / "wire"
ANSWERS = {200, 400, 403, 404, 405, 413}
WRITTEN: tuple[type[Model], ...] = (CallSession, CallEvent, TranscriptLine, InboxMessage, ToolRun, Recording, CallbackRequest)


@pytest.fixture(autouse=True)
def doors(settings: Any) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = PUBLIC_URL, [TOKEN], [SECRET]
    settings.ALLOWED_HOSTS = ["testserver"]


def twilio_paths() -> list[str]:
    """Every door of Twilio's that the address book knows, with something in its blanks."""
    found = {str(pattern) for pattern in _routes(get_resolver())}
    doors = sorted(route for route in found if route.startswith("webhook/twilio") and not route.endswith("/"))
    return ["/" + re.sub("<int:[a-z]+>", "0", route).replace("<slug:target>", "tier2") for route in doors]


def _routes(resolver: Any, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _routes(pattern, route)
        else:
            yield route


def check_rows() -> None:
    """Every row stands by its own rules, on databases that enforce none of them too."""
    for model in WRITTEN:
        foreign = [field.name for field in model._meta.fields if isinstance(field, ForeignKey) or field.is_relation]
        for row in model._default_manager.all():
            try:
                row.clean_fields(exclude=[*foreign, *(field.name for field in model._meta.fields if field.blank or field.has_default())])
            except ValidationError as wrong:
                raise AssertionError(f"{model.__name__}: {wrong}") from wrong
            for field in model._meta.concrete_fields:
                value = getattr(row, field.attname)
                assert "\0" not in (value if isinstance(value, str) else json.dumps(value, default=str)), field.name
                if isinstance(value, str) and field.max_length:
                    assert len(value) <= field.max_length, field.name
    assert all(RIGHT_SID.fullmatch(sid) for sid in CallSession.objects.values_list("call_sid", flat=True))


def test_a_first_webhook_with_a_bent_form_is_answered_or_refused(client: Client, cases: Cases) -> None:
    a_line()
    for hostile in cases("twilio-form"):
        fields = {**incoming(), "CallSid": f"CA{hostile.rng.getrandbits(128):032x}", "To": NUMBER}
        answer = _knock(client, "/webhook/twilio", hostile.form(fields), signed=hostile.rng.random() < 0.9)
        assert answer.status_code in ANSWERS
    check_rows()
    assert CallSession.objects.count() > 10, "no bent form got in: the cases are too coarse to find anything"


def test_a_form_without_a_right_signature_leaves_no_row(client: Client, cases: Cases) -> None:
    a_line()
    for hostile in cases("twilio-forged", share=0.5):
        answer = client.post(
            hostile.rng.choice(twilio_paths()),
            data=hostile.form({**incoming(), "To": NUMBER}),
            content_type=FORM,
            headers={"X-Twilio-Signature": hostile.rng.choice((hostile.text().encode("ascii", "ignore").decode().strip(), "x" * 28))},
        )
        assert answer.status_code in {400, 403, 413}
    assert not any(model._default_manager.exists() for model in WRITTEN)


def test_callbacks_with_bent_forms_never_fail_and_write_no_wrong_row(client: Client, cases: Cases) -> None:
    a_line()
    samples = [event["params"] for path in sorted((WIRE / "twilio" / "callbacks").glob("*.json")) for event in _events(path)]
    paths = twilio_paths()
    call = a_call(sid=CALL_SID)
    for hostile in cases("twilio-callbacks", share=2.0):
        fields = {**hostile.rng.choice(samples), "CallSid": CALL_SID, "AccountSid": call.account_sid}
        answer = _knock(client, hostile.rng.choice(paths), hostile.form(fields), signed=True)
        assert answer.status_code in ANSWERS
        if answer.status_code == 200:
            assert answer["Content-Type"].startswith("text/xml")
    check_rows()


def test_messages_of_vapi_bent_and_broken_are_kept_or_refused(client: Client, cases: Cases) -> None:
    a_line()
    a_call(sid=CALL_SID)
    samples = [json.loads(path.read_text()) for path in sorted((WIRE / "vapi" / "webhooks").glob("*.json"))]
    for hostile in cases("vapi-webhook", share=2.0):
        sample = hostile.rng.choice(samples)
        if hostile.rng.random() < 0.7:  # about a call we have
            sample = {**sample, "message": {**sample.get("message", {}), "call": {"id": "v-1", "name": f"{CALL_SID}.0"}}}
        proof = {"X-Vapi-Secret": SECRET} if hostile.rng.random() < 0.95 else {"X-Vapi-Secret": "no"}
        answer = client.post("/webhook/vapi", data=hostile.message(sample), content_type="application/json", headers=proof)
        assert answer.status_code in ANSWERS
    check_rows()
    assert InboxMessage.objects.count() > 10
    assert CallSession.objects.count() == 1, "a message of Vapi's made a call"


def _events(path: Path) -> list[dict[str, Any]]:
    told = json.loads(path.read_text())
    return [event for event in (told["events"] if isinstance(told, dict) else told) if event.get("params")]


def _knock(client: Client, path: str, body: bytes, *, signed: bool) -> Any:
    headers = {}
    if signed:
        try:
            headers["X-Twilio-Signature"] = signature(path, QueryDict(body, encoding="utf-8"))
        except Exception:  # nobody could sign this; the door has to say so
            headers["X-Twilio-Signature"] = "x" * 28
    return client.post(path, data=body, content_type=FORM, headers=headers)
