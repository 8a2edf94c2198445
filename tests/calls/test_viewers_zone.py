"""In whose time the desk says when: the viewer's, as their browser names it, and UTC for a name that is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.test import Client
from django.utils import timezone

from agents.models import AssistantTemplate
from calls.console.viewers_zone import COOKIE
from tests.agents.test_admin import text_of
from tests.builders import a_person, a_version

pytestmark = pytest.mark.django_db

AGENTS = "/admin/agents/assistanttemplate/"


@pytest.mark.parametrize(
    ("named", "said", "zone"),
    [
        ("Europe/Berlin", "March 1, 2026, 3:47 p.m.", "Europe/Berlin"),
        ("Asia/Kolkata", "March 1, 2026, 8:17 p.m.", "Asia/Kolkata"),
        *((wrong, "March 1, 2026, 2:47 p.m.", "UTC") for wrong in ("", "Nowhere/Else", "../../etc/passwd", "/etc/passwd", "x" * 3000, "é")),
    ],
)
def test_times_are_in_the_zone_the_browser_names(client: Client, named: str, said: str, zone: str) -> None:
    client.force_login(a_person("manager", "max"))
    a_version()
    AssistantTemplate.objects.update(changed_at=datetime(2026, 3, 1, 14, 47, tzinfo=UTC))
    client.cookies[COOKIE] = named
    page = text_of(client.get(AGENTS))
    assert said in page
    assert f"Times are in {zone}." in page
    assert timezone.get_current_timezone_name() == "UTC"  # the next page is somebody else's
