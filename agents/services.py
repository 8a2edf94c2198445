"""Every change to what callers hear: publish a draft, restore an older version, prepare it at Vapi, seed the first agent.

A version is written once. Publishing is one transaction, so a call meets the old words or the new ones, never half.
Whoever publishes enqueues `agents.tasks.premake_version` after the commit; until it is done calls carry the words inline.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from django.db import IntegrityError, transaction
from django.db.models import F, Max

from agents import discretion, limits, payload, seed, trail
from agents.lines import Target, candidate
from agents.models import AgentWords, AssistantTemplate, Discretion, HandoffTarget, PhoneLine, Premade, Rollout, TemplateVersion, Tool
from agents.payload import ServerAddress
from agents.trail import Who
from bridge.errors import VapiError, VapiUnavailable

log = logging.getLogger(__name__)

PUBLISH_TRIES = 3
TOOL_FIELDS = ("name", "description", "url", "parameters", "timeout_s", "waiting_sentence", "secret_env")
NEWER_TOOL_FIELDS = {"secret_env": ""}  # what versions frozen before this field existed meant


class NotPublishable(Exception):
    """Vapi would refuse these words. `problems` is {field: sentence}; tools stand as `tool NAME`."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("These words cannot be published.")
        self.problems = problems


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def create_assistant(self, assistant: dict[str, Any]) -> str: ...


def words_of(words: AgentWords) -> dict[str, Any]:
    """The fields that make an agent, by name."""
    return {name: getattr(words, name) for name in AgentWords.word_fields()}


def rules_of(rules: Discretion) -> dict[str, Any]:
    """What is left out of its calls, by name."""
    return {name: getattr(rules, name) for name in Discretion.rule_fields()}


def tool_words(tool: Tool) -> dict[str, Any]:
    """A tool as a version keeps it."""
    return {name: getattr(tool, name) for name in TOOL_FIELDS}


def changes(template: AssistantTemplate) -> list[str]:
    """In what the draft differs from what callers hear, as the desk's own words; empty when nothing is published."""
    heard = template.published
    if heard is None:
        return []
    names = [
        name for name in ("name", *AgentWords.word_fields(), *Discretion.rule_fields()) if getattr(template, name) != getattr(heard, name)
    ]
    labels = {field.name: str(field.verbose_name) for field in AssistantTemplate._meta.fields}
    words = [labels[name] for name in names]
    frozen = [{**NEWER_TOOL_FIELDS, **tool} for tool in heard.tools]
    return words + (["tools"] if [tool_words(tool) for tool in template.tools.all()] != frozen else [])


def problems_of(template: AssistantTemplate, *, allowed_private: Sequence[str]) -> dict[str, str]:
    """Why this draft cannot be published, as {field: sentence}; empty when it can."""
    problems = limits.word_problems({**words_of(template), "name": template.name}) | discretion.rule_problems(rules_of(template))
    for tool in template.tools.all():
        if wrong := limits.tool_problems(tool_words(tool), allowed_private=allowed_private):
            problems[f"tool {tool.name}"] = " ".join(wrong.values())
    return problems


def publish(
    *, template: AssistantTemplate, note: str, by: str, at: datetime, allowed_private: Sequence[str] = (), who: Who | None = None
) -> TemplateVersion:
    """Freeze the stored draft as the next version; every line of the template answers with it from now on.

    `who` is told to the trail, `by` to the list of versions. Raises NotPublishable. Two people publishing at once both
    succeed, one after the other.
    """
    template = AssistantTemplate.objects.get(pk=template.pk)
    if problems := problems_of(template, allowed_private=allowed_private):
        raise NotPublishable(problems)
    for _ in range(PUBLISH_TRIES - 1):
        try:
            return _publish(template, note, by, at, who or Who(by))
        except IntegrityError:  # somebody took our number between looking and writing
            continue
    return _publish(template, note, by, at, who or Who(by))


@transaction.atomic
def _publish(template: AssistantTemplate, note: str, by: str, at: datetime, who: Who) -> TemplateVersion:
    newest = template.versions.aggregate(newest=Max("number"))["newest"] or 0
    version = TemplateVersion.objects.create(
        template=template,
        number=newest + 1,
        name=template.name,
        tools=[tool_words(tool) for tool in template.tools.all()],
        note=note[:200],
        published_at=at,
        published_by=by[:150],
        **words_of(template),
        **rules_of(template),
    )
    _answer_with(version)
    trail.record("published", actor=who.actor, address=who.address, subject=f"agent {template.slug} v{version.number}", at=at)
    return version


@transaction.atomic
def restore(*, version: TemplateVersion, at: datetime, who: Who) -> bool:
    """Every line of the template answers with this version from now on, word for word. False: callers hear it already.

    The draft stays as it is, and the version keeps its number.
    """
    template = version.template
    if not AssistantTemplate.objects.filter(pk=template.pk).exclude(published=version).exists():
        return False
    _answer_with(version)
    trail.record("restored", actor=who.actor, address=who.address, subject=f"agent {template.slug} v{version.number}", at=at)
    return True


def _answer_with(version: TemplateVersion) -> None:
    template = version.template
    AssistantTemplate.objects.filter(pk=template.pk).update(published=version)  # not save(): the draft did not change
    Rollout.objects.filter(line__template=template).delete()
    Rollout.objects.bulk_create(Rollout(line=line, version=version, share=100) for line in template.lines.all())


def settle_line(*, line_pk: int) -> None:
    """After a line was pointed at another agent: drop the shares of the old one, so that the new one answers."""
    Rollout.objects.filter(line=line_pk).exclude(version__template=F("line__template")).delete()


def premake(*, version_pk: int, client: Vapi, server: ServerAddress, at: datetime) -> bool:
    """Store the version's own assistant at Vapi. True when it is ready, now or already.

    A failure is written on the version in our own words. Raises VapiUnavailable after that: worth trying again.
    """
    version = TemplateVersion.objects.select_related("template").get(pk=version_pk)
    if version.premade == Premade.READY:
        return True
    targets = _usual_targets(version.template)
    words = candidate(version, share=100, targets=targets).words
    unmade = TemplateVersion.objects.filter(pk=version_pk).exclude(premade=Premade.READY)
    try:
        assistant_id = client.create_assistant(payload.assistant(words, server=server))
    except VapiError as problem:
        log.warning("assistant not prepared", extra={"version": version_pk, "status": problem.status})
        unmade.update(premade=Premade.FAILED, premade_error=str(problem)[:200], premade_at=at)
        if isinstance(problem, VapiUnavailable):
            raise
        return False
    ready = {"premade": Premade.READY, "vapi_assistant_id": assistant_id, "premade_error": "", "premade_at": at}
    if unmade.update(premade_targets=[target.slug for target in targets], **ready) == 0:
        log.info("assistant prepared twice", extra={"version": version_pk})
    return True


def not_at_vapi(*, version_pk: int, at: datetime) -> None:
    """Vapi does not know the assistant it made for this version: calls send the words along, and staff may have it prepared again."""
    gone = {"premade": Premade.FAILED, "vapi_assistant_id": "", "premade_error": "Vapi does not have it any more.", "premade_at": at}
    TemplateVersion.objects.filter(pk=version_pk, premade=Premade.READY).update(**gone)


def prepare_again(*, version_pk: int) -> bool:
    """Put a version that could not be prepared back in the queue; the caller enqueues it. False: there is nothing to do."""
    failed = TemplateVersion.objects.filter(pk=version_pk).exclude(premade=Premade.READY)
    return failed.update(premade=Premade.WAITING, premade_error="") == 1


def _usual_targets(template: AssistantTemplate) -> tuple[Target, ...]:
    """The people of the template's first line: its other lines usually have the same."""
    line = template.lines.order_by("number").first()
    rows = line.handoff.all() if line is not None else HandoffTarget.objects.none()
    return tuple(Target(slug=row.slug, name=row.name, number=row.number, ring_seconds=row.ring_seconds) for row in rows)


def ensure_first_line(*, number: str, at: datetime) -> TemplateVersion | None:
    """Give a fresh installation its first line, answered by the seeded agent. Safe to run in every process.

    Returns the version to prepare when this call made the line; None when a line exists, or there is no number.
    """
    if not number or PhoneLine.objects.exists():
        return None
    return _seed(number=number, tool_url="", target_number="", at=at)


def seed_demo(*, number: str, tool_url: str, target_number: str, at: datetime, allowed_private: Sequence[str]) -> TemplateVersion | None:
    """The demo's household: TechFlow's agent with its account tool, one person behind it, one line.

    `tool_url` may move between runs; the agent is then published again. Returns the version to prepare, if there is one.
    """
    return _seed(number=number, tool_url=tool_url, target_number=target_number, at=at, allowed_private=allowed_private)


@transaction.atomic
def _seed(*, number: str, tool_url: str, target_number: str, at: datetime, allowed_private: Sequence[str] = ()) -> TemplateVersion | None:
    template, _ = AssistantTemplate.objects.get_or_create(slug=seed.TEMPLATE["slug"], defaults=seed.TEMPLATE)
    line, stale = PhoneLine.objects.get_or_create(number=number, defaults={"template": template, "name": seed.LINE_NAME})
    if tool_url:
        stale |= not Tool.objects.filter(name=seed.TOOL["name"], url=tool_url).exists()
        tool, _ = Tool.objects.update_or_create(
            name=seed.TOOL["name"], defaults={"url": tool_url}, create_defaults={**seed.TOOL, "url": tool_url}
        )
        if not template.tools.contains(tool):
            template.touch()
            template.tools.add(tool)
    if target_number:
        target, _ = HandoffTarget.objects.get_or_create(slug=seed.TARGET["slug"], defaults={**seed.TARGET, "number": target_number})
        if not line.handoff.contains(target):
            line.touch()
            line.handoff.add(target)
    if not stale and template.published_id is not None:
        return None
    return publish(template=template, note=seed.NOTE, by="", at=at, allowed_private=allowed_private)
