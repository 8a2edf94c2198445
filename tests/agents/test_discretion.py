"""What an agent leaves out is chosen at the desk or in the file, published with its words, and never takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from agents import as_code, as_code_export, as_code_import, discretion, services
from agents.discretion import PATTERN_CHARS, PATTERNS, pattern_problem, patterns_problem
from agents.models import AssistantTemplate, TemplateVersion
from tests.agents.test_admin import filled, text_of
from tests.builders import EPOCH, a_version

RULES = {"redact_cards": False, "redact_emails": True, "redact_phones": True, "redact_patterns": ["CUST-[0-9]{6}", r"(?i)password is \S+"]}
CHANGE = "/admin/agents/assistanttemplate/{}/change/"


@pytest.fixture
def desk(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann", "ann@example.com", "long-enough-1"))
    return client


@pytest.mark.parametrize("pattern", ["CUST-[0-9]{6}", "(a+)+$", "(a|aa)*b", "(?i)password is .*", r"\bé+\b", "x{3,90}"])
def test_a_pattern_is_taken_whatever_it_looks_like_and_takes_no_longer_for_a_hostile_text(pattern: str) -> None:
    assert pattern_problem(pattern) == ""
    begun = time.thread_time()
    list(discretion.found(pattern, "a" * 200_000 + "!"))
    assert time.thread_time() - begun < 1


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", "(?<!a)b", r"(a)\1", "(a{1000}){1000}", "a{9999}", "[", "\\", "((a{90}){90}){9}"])
def test_a_pattern_that_cannot_be_run_in_a_short_time_is_refused_in_a_sentence(pattern: str) -> None:
    assert pattern_problem(pattern).startswith("It is no regular expression that can be run")


@pytest.mark.parametrize("pattern", ["a*", "", "^", "x?y?", "|a"])
def test_a_pattern_that_matches_nothing_at_all_is_refused(pattern: str) -> None:
    assert "at least one character" in pattern_problem(pattern)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("a", "one pattern a line"),
        ([1], "one pattern a line"),
        (["a", " "], "one pattern a line"),
        (["a"] * (PATTERNS + 1), f"at most {PATTERNS}"),
        (["a", "b" * (PATTERN_CHARS + 1)], f"Pattern 2: Keep a pattern within {PATTERN_CHARS}"),
        (["a", "("], "Pattern 2: It is no regular expression"),
    ],
)
def test_a_list_that_is_wrong_says_where(patterns: Any, said: str) -> None:
    assert said in patterns_problem(patterns)


@pytest.mark.django_db
def test_a_manager_chooses_them_at_the_desk_and_publishes_them(desk: Client) -> None:
    template = a_version().template
    page = text_of(desk.get(CHANGE.format(template.pk)))
    assert "What is left out before anything is stored" in page
    sent = filled(template, redact_emails="on", redact_phones="on", redact_patterns="CUST-[0-9]{6}\n\n(?i)password is \\S+ ")
    sent.pop("redact_cards")
    assert desk.post(CHANGE.format(template.pk), sent).status_code == 302
    template.refresh_from_db()
    assert services.rules_of(template) == RULES
    assert "leave out card numbers" in services.changes(template)
    version = services.publish(template=template, note="", by="ann", at=timezone.now())
    assert services.rules_of(version) == RULES
    template.refresh_from_db()
    assert services.changes(template) == []
    shown = text_of(desk.get(f"/admin/agents/templateversion/{version.pk}/change/"))
    assert r"CUST-[0-9]{6} · (?i)password is \S+" in shown


@pytest.mark.django_db
def test_a_pattern_that_is_refused_is_said_at_its_field_and_nothing_is_stored(desk: Client) -> None:
    template = a_version().template
    answer = desk.post(CHANGE.format(template.pk), filled(template, redact_patterns="ok\n(?=a)"))
    assert "Pattern 2: It is no regular expression that can be run against any text in a short time" in text_of(answer)
    template.refresh_from_db()
    assert template.redact_patterns == []
    AssistantTemplate.objects.filter(pk=template.pk).update(redact_patterns=["("])
    with pytest.raises(services.NotPublishable) as refused:
        services.publish(template=template, note="", by="ann", at=timezone.now())
    assert set(refused.value.problems) == {"redact_patterns"}


@pytest.mark.django_db
def test_the_file_brings_them_and_takes_them_along() -> None:
    agent = {"slug": "s", "name": "S", "prompt": "p", "first_message": "Hi", "voice": {"voiceId": "v"}}
    bring_in: dict[str, Any] = {"draft": False, "dry_run": False, "note": "", "by": "ann", "at": EPOCH}
    as_code_import.bring_in({"templates": [{**agent, **RULES}]}, **bring_in)
    assert services.rules_of(TemplateVersion.objects.get()) == RULES
    [written] = as_code_export.document()["templates"]
    assert {key: written[key] for key in RULES} == RULES
    as_code_import.bring_in({"templates": [agent]}, **bring_in)
    assert TemplateVersion.objects.count() == 2
    assert services.rules_of(TemplateVersion.objects.get(number=2))["redact_cards"] is True
    with pytest.raises(as_code.NotImportable) as refused:
        as_code_import.bring_in({"templates": [{**agent, "redact_patterns": ["(a)\\1"]}]}, **bring_in)
    assert refused.value.problems["templates[0].redact_patterns"].startswith("Pattern 1: It is no regular expression")
