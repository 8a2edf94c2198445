"""Publishing freezes words, moves lines at once, and prepares the version at Vapi, however often it takes."""

from __future__ import annotations

from typing import Any

import pytest
from celery import current_app
from django.utils import timezone

from agents import account, lines, services, tasks
from agents.models import (
    AssistantTemplate,
    AuditEntry,
    HandoffTarget,
    PhoneLine,
    Premade,
    Rollout,
    TemplateVersion,
    Tool,
    VersionIsPublished,
)
from agents.trail import Who
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from tests.agents.words import EMAIL_TOOL, SERVER
from tests.bridge.http_server import Server, reply
from tests.builders import LINE, a_target, at_once

pytestmark = pytest.mark.django_db


class Vapi:
    """Stores assistants in memory, or raises `problem`."""

    def __init__(self, problem: VapiError | None = None) -> None:
        self.problem = problem
        self.stored: list[dict[str, Any]] = []

    def create_assistant(self, assistant: dict[str, Any]) -> str:
        if self.problem is not None:
            raise self.problem
        self.stored.append(assistant)
        return f"a-{len(self.stored)}"


def a_draft(**words: Any) -> AssistantTemplate:
    said = {"slug": "support", "name": "Support", "prompt": "Help.", "first_message": "Hello.", "voice_id": "sam"}
    return AssistantTemplate.objects.create(**(said | words))


def published(template: AssistantTemplate, note: str = "") -> TemplateVersion:
    return services.publish(template=template, note=note, by="ann", at=timezone.now())


def answers_now() -> int:
    """The version the next caller hears."""
    found = lines.answer(LINE, draw=0.0)
    assert found is not None
    assert found.version is not None
    return found.version.words.number


def test_publishing_freezes_the_words_and_the_tools() -> None:
    template = a_draft()
    template.tools.add(Tool.objects.create(**EMAIL_TOOL))
    version = published(template, "first")
    assert (version.number, version.note, version.published_by, version.name) == (1, "first", "ann", "Support")
    assert version.tools == [EMAIL_TOOL]
    Tool.objects.update(description="Changed.")
    template.prompt = "Changed."
    template.save()
    version.refresh_from_db()
    assert (version.prompt, version.tools) == ("Help.", [EMAIL_TOOL])
    template.refresh_from_db()
    assert template.published == version
    assert services.changes(template) == ["instructions", "tools"]


def test_a_published_version_cannot_be_written_again() -> None:
    version = published(a_draft())
    version.prompt = "Other."
    with pytest.raises(VersionIsPublished):
        version.save()
    with pytest.raises(VersionIsPublished):
        version.save(update_fields=["prompt", "premade"])
    version.save(update_fields=["premade"])


def test_publishing_moves_every_line_of_the_agent_and_no_other() -> None:
    template, other = a_draft(), a_draft(slug="other")
    ours = [PhoneLine.objects.create(number=f"+1555010010{n}", template=template) for n in range(2)]
    theirs = PhoneLine.objects.create(number="+15550100109", template=other)
    kept = published(other)
    published(template)
    newest = published(template)
    assert {line.rollouts.get().version for line in ours} == {newest}
    assert theirs.rollouts.get().version == kept


def test_publishing_the_stored_draft_not_a_stale_copy() -> None:
    template = a_draft()
    AssistantTemplate.objects.update(prompt="Newer.")
    assert published(template).prompt == "Newer."


def test_words_vapi_would_refuse_are_not_published_and_change_nothing() -> None:
    template = a_draft(temperature=3.0)
    template.tools.add(Tool.objects.create(**(EMAIL_TOOL | {"url": "http://127.0.0.1/"})))
    with pytest.raises(services.NotPublishable) as refused:
        published(template)
    assert list(refused.value.problems) == ["temperature", "tool get_user_account"]
    assert TemplateVersion.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_people_who_publish_at_once_all_get_a_version_of_their_own() -> None:
    template = a_draft()
    versions = at_once([lambda: published(template)] * 4)
    assert sorted(version.number for version in versions) == [1, 2, 3, 4]
    template.refresh_from_db()
    assert template.published is not None


def test_a_restored_version_answers_the_next_call_and_the_next_publish_is_a_new_number() -> None:
    template = a_draft()
    PhoneLine.objects.create(number=LINE, template=template)
    first, second = published(template), published(template)
    assert services.restore(version=first, at=timezone.now(), who=Who("ann"))
    assert answers_now() == first.number
    assert not services.restore(version=first, at=timezone.now(), who=Who("ann"))
    assert [entry.subject for entry in AuditEntry.objects.filter(action="restored")] == [f"agent {template.slug} v{first.number}"]
    assert published(template).number == second.number + 1
    assert answers_now() == second.number + 1


def test_a_prepared_version_is_used_by_id() -> None:
    template = a_draft()
    line = PhoneLine.objects.create(number=LINE, template=template)
    line.handoff.add(a_target())
    version, vapi = published(template), Vapi()
    assert services.premake(version_pk=version.pk, client=vapi, server=SERVER, at=timezone.now())
    version.refresh_from_db()
    assert (version.premade, version.vapi_assistant_id, version.premade_targets) == (Premade.READY, "a-1", ["tier2"])
    found = lines.answer(LINE, draw=0.0)
    assert found is not None
    assert found.version is not None
    assert found.version.assistant_id == "a-1"
    assert services.premake(version_pk=version.pk, client=vapi, server=SERVER, at=timezone.now())
    assert len(vapi.stored) == 1


def test_a_refusal_stays_visible_in_our_words_and_can_be_tried_again() -> None:
    version = published(a_draft())
    assert not services.premake(version_pk=version.pk, client=Vapi(VapiRefused("Vapi refused with 401.")), server=SERVER, at=timezone.now())
    version.refresh_from_db()
    assert (version.premade, version.premade_error) == (Premade.FAILED, "Vapi refused with 401.")
    assert services.prepare_again(version_pk=version.pk)
    assert services.premake(version_pk=version.pk, client=Vapi(), server=SERVER, at=timezone.now())
    version.refresh_from_db()
    assert (version.premade, version.premade_error) == (Premade.READY, "")
    assert not services.prepare_again(version_pk=version.pk)


def test_an_absent_vapi_is_visible_and_worth_trying_again() -> None:
    version = published(a_draft())
    with pytest.raises(VapiUnavailable):
        services.premake(version_pk=version.pk, client=Vapi(VapiUnavailable("Vapi failed.")), server=SERVER, at=timezone.now())
    version.refresh_from_db()
    assert version.premade == Premade.FAILED


def test_the_task_prepares_at_the_vapi_of_the_settings(settings: Any) -> None:
    version = published(a_draft())
    with Server(reply(201, {"id": "a-9"})) as vapi:
        settings.VAPI_BASE_URL, settings.VAPI_API_KEY = vapi.url, "key-7"
        settings.VAPI_WEBHOOK_SECRETS, settings.PUBLIC_URL = ["one", "two"], "https://support.example.com"
        tasks.premake_version(version.pk)
    version.refresh_from_db()
    assert version.vapi_assistant_id == "a-9"
    (asked,) = vapi.asked
    assert asked.headers["Authorization"] == "Bearer key-7"
    assert asked.json["server"]["url"] == "https://support.example.com/webhook/vapi"
    assert asked.json["server"]["headers"] == {"X-Vapi-Secret": "one"}


def test_one_client_serves_as_long_as_the_settings_stay(settings: Any) -> None:
    first = account.client()
    assert account.client() is first
    settings.VAPI_API_KEY = "other"
    assert account.client() is not first


def test_the_task_tries_again_only_when_that_can_help() -> None:
    task: Any = current_app.tasks["agents.tasks.premake_version"]
    assert (task.autoretry_for, task.max_retries) == ((VapiUnavailable,), 3)


def test_a_line_pointed_at_another_agent_forgets_the_old_shares() -> None:
    template = a_draft()
    line = PhoneLine.objects.create(number=LINE, template=template)
    published(template)
    other = published(a_draft(slug="other"))
    services.settle_line(line_pk=line.pk)
    assert line.rollouts.count() == 1
    line.template = other.template
    line.save()
    services.settle_line(line_pk=line.pk)
    found = lines.answer(LINE, draw=0.5)
    assert found is not None
    assert found.version_id == other.pk
    assert Rollout.objects.count() == 0


def test_a_fresh_installation_gets_its_first_line_once() -> None:
    version = services.ensure_first_line(number=LINE, at=timezone.now())
    assert version is not None
    found = lines.answer(LINE, draw=0.0)
    assert found is not None
    assert found.version_id == version.pk
    assert services.ensure_first_line(number="+15550100102", at=timezone.now()) is None
    assert PhoneLine.objects.count() == 1


def test_without_a_number_no_line_is_made() -> None:
    assert services.ensure_first_line(number="", at=timezone.now()) is None
    assert AssistantTemplate.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_processes_that_start_together_make_one_line() -> None:
    made = at_once([lambda: services.ensure_first_line(number=LINE, at=timezone.now())] * 4)
    assert len([version for version in made if version is not None]) == 1
    assert (PhoneLine.objects.count(), TemplateVersion.objects.count()) == (1, 1)


def seed_the_demo(port: int) -> TemplateVersion | None:
    return services.seed_demo(
        number=LINE,
        tool_url=f"http://127.0.0.1:{port}/crm",
        target_number="+15550100111",
        at=timezone.now(),
        allowed_private=[f"127.0.0.1:{port}"],
    )


def test_the_demo_has_an_agent_a_tool_and_a_person() -> None:
    version = seed_the_demo(9000)
    assert version is not None
    assert [tool["name"] for tool in version.tools] == ["get_user_account"]
    assert version.first_message == "Thanks for calling TechFlow support. How can I help you today?"
    assert HandoffTarget.objects.get().slug == "tier2"
    assert seed_the_demo(9000) is None


def test_the_demos_tool_may_move_between_runs() -> None:
    seed_the_demo(9000)
    version = seed_the_demo(9001)
    assert version is not None
    assert version.tools[0]["url"] == "http://127.0.0.1:9001/crm"
