"""A number finds its agent: the same one for the same call, in the shares somebody chose, and from memory in need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import lines, services
from agents.models import AssistantTemplate, PhoneLine, Rollout, TemplateVersion
from tests.agents.words import SERVER
from tests.builders import LINE, a_line, a_target, a_version, call_sid

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    lines.forget()
    yield
    lines.forget()


def the_answer(draw: float = 0.0) -> lines.Answer:
    found = lines.answer(LINE, draw=draw)
    assert found is not None
    return found


def test_a_strangers_number_has_no_answer() -> None:
    assert lines.answer("+15550109999", draw=0.0) is None


def test_a_line_answers_with_its_version_its_people_and_its_announcement() -> None:
    line = a_line(targets=("tier2", "billing"), disclosure="An AI.", voicemail=False)
    found = the_answer()
    assert (found.line_id, found.disclosure, found.voicemail) == (line.pk, "An AI.", False)
    assert [target.slug for target in found.targets] == ["tier2", "billing"]
    assert found.version_id == line.rollouts.get().version_id
    assert found.version is not None
    assert found.version.words.targets == ("tier2", "billing")
    assert (found.barge_in, found.greeting_interruptible) == ("instant", True)


def test_a_line_without_rollout_answers_with_what_is_published() -> None:
    version = a_version()
    PhoneLine.objects.create(number=LINE, template=version.template)
    assert the_answer().version_id == version.pk


def test_a_line_whose_agent_was_never_published_leaves_the_call_to_people() -> None:
    version = a_version()
    AssistantTemplate.objects.update(published=None)
    PhoneLine.objects.create(number=LINE, template=version.template)
    assert the_answer().version_id is None


def test_shares_are_weights_over_the_draw() -> None:
    line = a_line()
    first = line.rollouts.get()
    second = Rollout.objects.create(line=line, version=next_version(line), share=50)
    Rollout.objects.filter(pk=first.pk).update(share=25)
    drawn = [the_answer(draw=n / 60).version_id for n in range(60)]
    assert drawn == [first.version_id] * 20 + [second.version_id] * 40
    assert the_answer(draw=1 / 3 - 2**-48).version_id == first.version_id
    assert the_answer(draw=1 / 3 + 2**-48).version_id == second.version_id
    assert the_answer(draw=1 - 2**-48).version_id == second.version_id


def next_version(line: PhoneLine) -> TemplateVersion:
    old = line.rollouts.get().version
    words = services.words_of(old)
    return TemplateVersion.objects.create(
        template=line.template, number=old.number + 1, name=old.name, published_at=timezone.now(), **words
    )


def test_a_draw_is_the_calls_own_and_spread_evenly() -> None:
    sid = call_sid()
    assert lines.draw_of(sid) == lines.draw_of(sid)
    draws = [lines.draw_of(f"CA{n:032x}") for n in range(2000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert 900 < sum(draw < 0.5 for draw in draws) < 1100


def test_answering_costs_few_queries_however_many_people_and_versions_there_are() -> None:
    a_line(targets=("a", "b", "c", "d"))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        the_answer()
    assert len(queries) <= 3


def test_a_line_once_seen_is_answered_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    line = a_line(targets=("tier2",))
    before = the_answer()
    the_database_goes_away(monkeypatch)
    assert the_answer() == before
    assert before.line_id == line.pk


def test_every_line_is_remembered_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    assert lines.warm() == 1
    the_database_goes_away(monkeypatch)
    assert the_answer().number == LINE


def test_a_line_never_seen_is_an_error_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    the_database_goes_away(monkeypatch)
    with pytest.raises(DatabaseError):
        the_answer()


def test_a_deleted_line_is_not_answered_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    the_answer()
    PhoneLine.objects.all().delete()
    assert lines.answer(LINE, draw=0.0) is None
    the_database_goes_away(monkeypatch)
    with pytest.raises(DatabaseError):
        the_answer()


def the_database_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(QuerySet, "_fetch_all", gone)


def request_for(line: PhoneLine | None, version: TemplateVersion) -> dict[str, Any]:
    return lines.conversation_request(
        line_id=line.pk if line else None, version_id=version.pk, call_sid=call_sid(), n=0, epoch=0, server=SERVER, variables={"line": "x"}
    )


def test_a_call_uses_the_stored_assistant_when_it_is_ready() -> None:
    line = a_line(targets=("tier2",))
    version = line.rollouts.get().version
    TemplateVersion.objects.update(premade="ready", vapi_assistant_id="a-1", premade_targets=["tier2"])
    assert request_for(line, version)["assistantId"] == "a-1"


@pytest.mark.parametrize(
    "state", [{"premade": "waiting"}, {"premade": "failed"}, {"premade_targets": []}, {"premade_targets": ["billing"]}]
)
def test_a_call_sends_the_words_along_when_the_stored_assistant_is_not_the_right_one(state: dict[str, Any]) -> None:
    line = a_line(targets=("tier2",))
    TemplateVersion.objects.update(**({"premade": "ready", "vapi_assistant_id": "a-1", "premade_targets": ["tier2"]} | state))
    body = request_for(line, line.rollouts.get().version)
    assert "assistantId" not in body
    tools = {tool["function"]["name"]: tool for tool in body["assistant"]["model"]["tools"]}
    assert tools["transfer_to_human"]["function"]["parameters"]["properties"]["target"]["enum"] == ["tier2"]


def test_a_call_whose_line_is_gone_still_has_its_words() -> None:
    a_target()
    body = request_for(None, a_version())
    assert body["assistant"]["firstMessage"] == "Hello."


def test_a_call_on_a_remembered_line_has_its_request_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    line = a_line(targets=("tier2",))
    version = line.rollouts.get().version
    expected = request_for(line, version)
    lines.warm()
    the_database_goes_away(monkeypatch)
    assert request_for(line, version)["assistant"] == expected["assistant"]
    with pytest.raises(DatabaseError):
        request_for(None, version)
