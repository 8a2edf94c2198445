"""The table of what is done with each kind of message, held against the vendor's own published list."""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from calls.models import InboxMessage
from calls.vapi_events import FINAL_ONLY
from calls.vapi_kinds import ANSWERS, DEEDS, Deed, deed, label
from calls.webhooks import vapi as door
from tests.calls.doors import SECRET

MANY_A_SECOND = ("conversation-update", "model-output", "voice-input", "speech-update", "assistant.speechStarted")


def published() -> set[str]:
    """Every kind the vendor's package knows, read from its files."""
    spec = find_spec("vapi")
    assert spec is not None
    assert spec.submodule_search_locations
    types = Path(spec.submodule_search_locations[0]) / "types"
    selectable = re.findall(r'^ {8}"([^"]+)",$', (types / "assistant_server_messages_item.py").read_text(), re.MULTILINE)
    modules = re.findall(r"^from \.(server_message_\w+) import", (types / "server_message_message.py").read_text(), re.MULTILINE)
    files = [types / f"{module}{part}.py" for module in modules for part in ("", "_type")]
    typed = "\n".join(path.read_text() for path in files if path.exists())
    stated = re.findall(r'(?:^    type: |Type = )[^\n]*?\bLiteral\["([^"]+)"\]', typed, re.MULTILINE)
    return {*selectable, *stated}


def post(client: Client, kind: str) -> tuple[int, bytes]:
    body = json.dumps({"message": {"type": kind, "call": {"id": "v1"}}})
    answer = client.post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": SECRET})
    return answer.status_code, answer.content


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]


def test_every_published_kind_is_in_the_table() -> None:
    kinds = published()
    assert {"status-update", "end-of-call-report", "campaign.predial", "call.endpointing.request"} <= kinds
    assert kinds - set(DEEDS) - {FINAL_ONLY} == set()


@pytest.mark.django_db
@pytest.mark.parametrize("kind", DEEDS)
def test_every_kind_is_done_with_as_the_table_says(client: Client, kind: str) -> None:
    before = door.told[kind]
    status, answer = post(client, kind)
    assert status == 200
    assert door.told[kind] == before + 1
    kept = 0 if deed(kind) is Deed.COUNTED or kind == "transcript" else 1  # this transcript is no final
    assert InboxMessage.objects.count() == kept
    if kind == "voice-request":
        assert answer == b""  # it wants samples
    elif deed(kind) is not Deed.ANSWERED:
        assert json.loads(answer) == ANSWERS.get(kind, {})


@pytest.mark.django_db
def test_a_kind_of_next_year_is_kept_and_counted_without_its_name(client: Client) -> None:
    before = door.told["unknown"]
    assert post(client, "assistant.hummed") == (200, b"{}")
    assert InboxMessage.objects.get().kind == "assistant.hummed"
    assert (door.told["unknown"], door.told["assistant.hummed"]) == (before + 1, 0)
    assert label("assistant.hummed") == "unknown"


@pytest.mark.parametrize("kind", MANY_A_SECOND)
def test_what_comes_many_times_a_second_never_touches_the_database(client: Client, kind: str) -> None:
    for _ in range(3):
        assert post(client, kind) == (200, b"{}")


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("transfer-destination-request", "transfer_destination_request", "TransferDestinationRequest"),
        ("handoff-destination-request", "handoff_destination_request", "HandoffDestinationRequest"),
        ("knowledge-base-request", "knowledge_base_request", "KnowledgeBaseRequest"),
        ("call.endpointing.request", "call_endpointing_request", "CallEndpointingRequest"),
        ("campaign.predial", "campaign_predial", "CampaignPredial"),
    ],
)
def test_our_no_is_what_the_vendor_can_read(kind: str, module: str, name: str) -> None:
    published_type = getattr(import_module(f"vapi.types.server_message_response_{module}"), f"ServerMessageResponse{name}")
    read = published_type.model_validate(ANSWERS[kind])
    assert (read.model_extra or {}) == {}


def test_nobody_to_call_is_named_in_any_answer() -> None:
    assert "number" not in json.dumps(list(ANSWERS.values())).replace("This number", "")
