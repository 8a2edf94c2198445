"""Bad forms at the editing desk: an error beside the field or a saved row that is right, never a page that breaks."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Tool
from tests.builders import a_line
from tests.fuzz.conftest import Cases

pytestmark = pytest.mark.django_db
DESK = "/admin/agents"
FIELD = re.compile(r'<(?:input|textarea|select)[^>]*? name="([^"]+)"')


@pytest.fixture
def desk(client: Client, settings: Any) -> Client:
    settings.ALLOWED_HOSTS = ["testserver"]
    a_line(targets=("tier2",))
    Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")
    client.force_login(User.objects.create_superuser("ann", "ann@example.com", "long-enough-1"))
    return client


def pages() -> list[str]:
    kept = [(model, model._default_manager.first()) for model in (AssistantTemplate, HandoffTarget, PhoneLine, Tool)]
    paths = [f"{DESK}/{model._meta.model_name}/add/" for model, _ in kept]
    return [*paths, *(f"{DESK}/{model._meta.model_name}/{row.pk}/change/" for model, row in kept if row is not None)]


def test_bent_forms_are_saved_right_or_explained(desk: Client, cases: Cases) -> None:
    paths = pages()
    forms = {path: sorted(set(FIELD.findall(desk.get(path).content.decode())) - {"csrfmiddlewaretoken"}) for path in paths}
    for hostile in cases("desk", share=0.25):
        path = hostile.rng.choice(paths)
        sample = {name: hostile.rng.choice(("1", "on", "support", "", "+15550100111")) for name in forms[path]}
        sent: dict[str, list[str]] = {}
        for name, value in hostile.fields(sample):
            name, value = (text.encode("utf-8", "replace").decode() for text in (name, value))
            sent.setdefault(name, []).append(value)
        answer = desk.post(path, sent)
        assert answer.status_code in {200, 302, 400}
    for model in (AssistantTemplate, HandoffTarget, PhoneLine, Tool):
        for row in model._default_manager.all():
            for field in model._meta.concrete_fields:
                value = getattr(row, field.attname)
                assert "\0" not in str(value)
                assert not field.max_length or len(str(value)) <= field.max_length
