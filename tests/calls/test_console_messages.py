"""The vendors' stored messages on pages: found, opened without what opens doors, and processed again."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from calls.console.masked import masked, pretty
from calls.models import CallSession, InboxMessage, Status, TranscriptLine, VapiSession
from tests.builders import a_call, a_message

pytestmark = pytest.mark.django_db

CANARY = "canary-9f2c"


@pytest.fixture
def ops(client: Client) -> Client:
    client.force_login(User.objects.create_user("olga", password="x"))
    return client


def kinds(ops: Client, path: str) -> list[str]:
    return [item.slots["kind"] for item in ops.get(path).context["rows"]]


# -- lists -------------------------------------------------------------------------------------------------------------


def test_messages_stand_with_their_call_and_the_others_on_a_page_of_their_own(ops: Client) -> None:
    call = a_call()
    a_message(call, kind="status-update", received_at=timezone.now() - timedelta(minutes=1))
    a_message(call, kind="transcript")
    a_message(a_call(), kind="hang")
    a_message(kind="chat.created")
    assert kinds(ops, f"/calls/{call.public_id}/messages/") == ["transcript", "status-update"]
    assert kinds(ops, "/messages/") == ["chat.created"]
    assert f"/calls/{call.public_id}/messages/" in ops.get(f"/calls/{call.public_id}/").content.decode()


def test_messages_are_filtered_by_state_and_kind(ops: Client) -> None:
    now = timezone.now()
    a_message(kind="waits")
    a_message(kind="done", processed_at=now)
    a_message(kind="wrong", processed_at=now, problem="A transcript has no role or no text.")
    assert kinds(ops, "/messages/?state=waiting") == ["waits"]
    assert kinds(ops, "/messages/?state=done") == ["done"]
    assert kinds(ops, "/messages/?state=problem") == kinds(ops, "/messages/?kind=wrong") == ["wrong"]
    assert len(kinds(ops, "/messages/?state=<b>&kind=<i>")) == 3
    assert "A transcript has no role or no text." in ops.get("/messages/").content.decode()


def test_a_list_of_messages_brings_no_body_along(ops: Client, django_assert_num_queries: Any) -> None:
    call = a_call()
    log_in_and_way_around, path = 5, f"/calls/{call.public_id}/messages/"
    for rows, size in ((1, "1.0 kB"), (9, "1.0 kB")):
        for _ in range(rows):
            a_message(call, body={"type": "x", "text": "y" * 1000, "list": []})
        with django_assert_num_queries(log_in_and_way_around + 4) as counted:
            page = ops.get(path)
        assert {item.slots["size"] for item in page.context["rows"]} == {size}
        assert not any('"calls_inboxmessage"."body",' in query["sql"] for query in counted.captured_queries)


@pytest.mark.parametrize(
    "path", ["/messages/77/", "/messages/77.json", "/messages/99999999999999999999999/", f"/calls/{'0' * 32}/messages/"]
)
def test_a_message_that_never_was_is_not_found(ops: Client, path: str) -> None:
    assert ops.get(path).status_code == 404


# -- opened ------------------------------------------------------------------------------------------------------------

DOORS: tuple[tuple[str, Any], ...] = (
    ("recordingUrl", f"https://storage.vapi.ai/{CANARY}.wav"),
    ("url", CANARY),
    ("URI", CANARY),
    ("controlUrl", [CANARY]),
    ("headers", {"x": CANARY}),
    ("Authorization", CANARY),
    ("apiKey", CANARY),
    ("api_key", CANARY),
    ("clientSecret", {"a": CANARY}),
    ("access_token", CANARY),
    ("password", CANARY),
    ("systemPrompt", CANARY),
    ("assistant", {"model": {"messages": [{"content": CANARY}]}}),
    ("assistantOverrides", {"firstMessage": CANARY}),
    ("messages", [{"role": "system", "message": CANARY}, {"role": "system", "content": CANARY}]),
    ("messagesOpenAIFormatted", [{"role": "developer", "content": [{"type": "text", "text": CANARY}]}]),
    ("text", f"see wss://phone.vapi.ai/{CANARY}/transport now"),
    ("text", f"HTTPS://user:{CANARY}@host.example/a"),
    ("text", f"it says Bearer {CANARY}"),
    ("arguments", json.dumps({"password": CANARY, "n": 1})),
)


@pytest.mark.parametrize(("key", "value"), DOORS, ids=[key for key, _ in DOORS])
def test_what_opens_a_door_or_is_a_prompt_is_on_no_page(ops: Client, key: str, value: Any) -> None:
    message = a_message(a_call(), body={"type": "x", "deep": [{"deeper": {key: value}}]})
    for path in (f"/messages/{message.pk}/", f"/messages/{message.pk}.json"):
        answer = ops.get(path)
        assert answer.status_code == 200
        assert CANARY not in answer.content.decode()


def test_what_people_said_and_what_things_cost_is_shown_as_it_came() -> None:
    body = {
        "type": "end-of-call-report",
        "transcript": "Agent: Hi\nCaller: Größe?",
        "messages": [{"role": "user", "message": "I cannot log in."}, {"role": "bot", "message": "Hello."}],
        "costBreakdown": {"llmPromptTokens": 1180, "tokens": 7, "total": 0.0571},
        "empty": {"url": "", "secret": None, "headers": {}, "signed": True},
    }
    assert masked(body) == body
    assert "Größe" in pretty(body)


def test_what_is_hidden_says_so_with_its_size() -> None:
    assert masked({"secret": "12345", "list": [{"url": "https://a.example/x"}]}) == {
        "secret": "••• hidden (5 characters)",
        "list": [{"url": "••• hidden (19 characters)"}],
    }
    assert masked("see https://a.example/x?y=1.") == "see https://a.example/•••"


def test_odd_bodies_open_too(ops: Client) -> None:
    deep: Any = "end"
    for _ in range(200):
        deep = [deep]
    bodies: tuple[Any, ...] = ("text", 7, [None], [], {"": {}}, {"n": 10**30}, deep)
    for body in bodies:
        message = a_message(body=body)
        assert ops.get(f"/messages/{message.pk}/").status_code == 200
    assert pretty({"half": "\ud83d"}) == '{\n  "half": "?"\n}'


def test_a_long_body_is_cut_on_the_page_and_whole_in_the_file(ops: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.console.messages.LONGEST_SHOWN", 50)
    message = a_message(body={"text": "word " * 100 + "end"})
    page, file = ops.get(f"/messages/{message.pk}/").content.decode(), ops.get(f"/messages/{message.pk}.json")
    assert "more characters are not shown here" in page
    assert "end" not in page.split("<pre", 1)[1].split("</pre>")[0]
    assert json.loads(file.content)["text"].endswith("end")
    assert file.headers["Content-Disposition"] == f'attachment; filename="message-{message.pk}.json"'


# -- again -------------------------------------------------------------------------------------------------------------


def a_final(call: CallSession, text: str) -> InboxMessage:
    body = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": text, "timestamp": 1_795_342_808_900}
    VapiSession.objects.filter(call=call).update(vapi_call_id="v-1", state="live")
    return a_message(call, kind="transcript", body={**body, "call": {"id": "v-1", "name": ""}}, vapi_call_id="v-1")


def test_a_message_is_processed_again_and_tells_its_words_once(ops: Client) -> None:
    message = a_final(a_call(status=Status.STREAMING), "I already tried that")
    InboxMessage.objects.filter(pk=message.pk).update(processed_at=timezone.now(), problem="It could not be processed (KeyError).")
    for _ in range(2):
        answer = ops.post(f"/messages/{message.pk}/again/", follow=True)
        assert answer.redirect_chain == [(f"/messages/{message.pk}/", 302)]
        assert "Processed again" in answer.content.decode()
    assert TranscriptLine.objects.filter(said="I already tried that").count() == 1
    message.refresh_from_db()
    assert (message.problem, message.processed_at is not None) == ("", True)


def test_a_message_whose_call_is_not_known_says_so_and_waits(ops: Client) -> None:
    message = a_message(kind="status-update", body={"type": "status-update", "status": "ended"}, vapi_call_id="v-unknown")
    answer = ops.post(f"/messages/{message.pk}/again/", follow=True)
    assert "It cannot be processed yet" in answer.content.decode()


def test_a_message_that_is_not_as_documented_says_so_again(ops: Client) -> None:
    message = a_final(a_call(status=Status.STREAMING), "x")
    InboxMessage.objects.filter(pk=message.pk).update(body={"type": "transcript", "transcriptType": "final"})
    assert "Processed again, with a problem." in ops.post(f"/messages/{message.pk}/again/", follow=True).content.decode()


def test_news_of_twilio_are_not_processed_again(ops: Client) -> None:
    message = a_message(a_call(), source="twilio", processed_at=timezone.now())
    assert "Process again" not in ops.get(f"/messages/{message.pk}/").content.decode()
    ops.post(f"/messages/{message.pk}/again/")
    message.refresh_from_db()
    assert message.processed_at is not None


def test_processing_again_takes_a_log_in_and_a_form_of_ours(client: Client) -> None:
    door = f"/messages/{a_message().pk}/again/"
    assert client.post(door).headers["Location"].startswith("/login/")
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(User.objects.create_user("olga", password="x"))
    assert (careful.get(door).status_code, careful.post(door).status_code) == (405, 403)
    client.force_login(User.objects.get())
    assert client.post("/messages/77/again/").status_code == 404
