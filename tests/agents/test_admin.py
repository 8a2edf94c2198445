"""The editing desk, page by page, as a manager's browser meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import services
from agents.forms import AgentForm
from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Premade, Team, TemplateVersion, Tool
from agents.signing import SIGNATURE
from tests.agents.words import EMAIL_TOOL
from tests.bridge.http_server import Server, reply
from tests.builders import LINE, a_line, a_person, a_target, a_version

pytestmark = pytest.mark.django_db(transaction=True)

DESK = "/admin/agents"
NO_BROKER = "redis://127.0.0.1:1/0"


@pytest.fixture
def desk(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann", "ann@example.com", "long-enough-1"))
    return client


@pytest.fixture(autouse=True)
def vapi(settings: Any) -> Iterator[Server]:
    """Work that would be queued is done at once, at a Vapi of our own."""
    with Server(reply(201, {"id": "a-1"})) as server:
        settings.VAPI_BASE_URL = server.url
        settings.TOOL_ALLOWED_PRIVATE = ["127.0.0.1:9000"]
        current_app.conf.task_always_eager = True
        yield server
        current_app.conf.task_always_eager = False


def text_of(response: Any) -> str:
    page = re.sub(r"<(script|style).*?</\1>", "", response.content.decode(), flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def filled(template: AssistantTemplate | None = None, **changes: Any) -> dict[str, Any]:
    """What a browser sends when the form is submitted with these changes."""
    form = AgentForm(instance=template)
    sent: dict[str, Any] = {}
    for name, field in form.fields.items():
        value = field.prepare_value(form.get_initial_for_field(field, name))
        if name == "tools":
            sent[name] = [tool.pk for tool in value or []]
        elif value is not None and value is not False:
            sent[name] = "on" if value is True else value
    written = (
        {"name": "Support", "slug": "support", "prompt": "Help.", "first_message": "Hello.", "voice_id": "sam"} if template is None else {}
    )
    return {key: value for key, value in {**sent, **written, **changes}.items() if value is not None}


def test_a_manager_writes_an_agent_and_publishes_it_in_one_go(desk: Client, vapi: Server) -> None:
    sent = filled(_publish="1", note="first words", keyterms="SSO\n\n TechFlow ")
    page = desk.post(f"{DESK}/assistanttemplate/add/", sent, follow=True)
    assert "“Support” is published as version 1. New calls use it at once." in text_of(page)
    version = TemplateVersion.objects.get()
    assert (version.note, version.published_by, version.keyterms) == ("first words", "ann", ["SSO", "TechFlow"])
    assert (version.premade, version.vapi_assistant_id) == (Premade.READY, "a-1")
    assert vapi.asked[0].json["transcriber"]["keyterm"] == ["SSO", "TechFlow"]


def test_saving_a_draft_changes_nothing_callers_hear(desk: Client) -> None:
    version = a_version()
    template = version.template
    page = desk.post(f"{DESK}/assistanttemplate/{template.pk}/change/", filled(template, prompt="New.", _continue="1"), follow=True)
    assert f"version {version.number} · this draft is different: instructions" in text_of(page)
    assert TemplateVersion.objects.count() == 1


def test_publishing_from_the_page_says_so_and_the_draft_is_then_the_same(desk: Client) -> None:
    template = a_version().template
    page = desk.post(f"{DESK}/assistanttemplate/{template.pk}/change/", filled(template, prompt="New.", _publish="1"), follow=True)
    assert "version 2 , the same as this draft" in text_of(page)
    assert TemplateVersion.objects.get(number=2).prompt == "New."


def test_publishing_from_the_list_takes_the_note_along(desk: Client) -> None:
    template = a_version().template
    sent = {"action": "publish", "note": "from the list", "_selected_action": [template.pk]}
    page = desk.post(f"{DESK}/assistanttemplate/", sent, follow=True)
    assert "is published as version 2" in text_of(page)
    assert TemplateVersion.objects.get(number=2).note == "from the list"


def test_a_published_line_answers_with_the_new_version(desk: Client) -> None:
    line = a_line()
    desk.post(f"{DESK}/assistanttemplate/", {"action": "publish", "_selected_action": [line.template.pk]})
    assert line.rollouts.get().version.number == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperature": "2.5"}, "Choose from 0 to 2."),
        ({"stop_voice_seconds": "0.9"}, "Choose from 0 to 0.5 seconds."),
        ({"endpointing_ms": "5000"}, "Choose from 10 to 500 ms."),
        ({"max_duration_s": "5"}, "Choose from 10 to 43200 seconds."),
        ({"name": "x" * 41}, "has at most 40 characters"),
        ({"first_message": ""}, "Write the greeting, or let the agent greet in its own words."),
        ({"voice_provider": "elevenlabs"}, "Select a valid choice."),
        ({"model_name": "gpt-9"}, "Choose a model of openai:"),
        ({"voice_model": "sonic-3"}, "Choose a model of 11labs:"),
        ({"language": "klingon"}, "Choose a language of deepgram:"),
    ],
)
def test_what_vapi_would_refuse_is_refused_at_its_field(desk: Client, change: dict[str, Any], sentence: str) -> None:
    page = desk.post(f"{DESK}/assistanttemplate/add/", filled(**change))
    assert page.status_code == 200
    assert sentence in text_of(page)
    assert AssistantTemplate.objects.count() == 0


def test_the_desk_says_what_people_say(desk: Client) -> None:
    index = text_of(desk.get("/admin/"))
    assert all(f" {word} " in index for word in ("Calls", "Callbacks"))
    assert not any(word in index for word in ("Call sessions", "Callback requests"))
    for page in ("assistanttemplate", "handofftarget", "team"):
        shown = text_of(desk.get(f"{DESK}/{page}/add/"))
        assert ("Short name:" in shown, "Slug" in shown) == (True, False)


def test_help_texts_quote_the_table_that_checks(desk: Client) -> None:
    page = text_of(desk.get(f"{DESK}/assistanttemplate/add/"))
    for words in ("0 to 2.", "50 to 10000 tokens.", "10 to 500 ms.", "0 to 0.5 seconds.", "10 to 43200 seconds."):
        assert words in page


def test_a_tool_that_went_wrong_stops_the_publication_and_is_named(desk: Client) -> None:
    template = a_version().template
    template.tools.add(Tool.objects.create(**(EMAIL_TOOL | {"url": "http://127.0.0.1:1/"})))
    page = desk.post(f"{DESK}/assistanttemplate/", {"action": "publish", "_selected_action": [template.pk]}, follow=True)
    assert "was not published. tool get_user_account: Use an https:// address on port 443 or 8443." in text_of(page)
    assert TemplateVersion.objects.count() == 1


def test_a_version_shows_its_words_and_offers_nothing_to_change(desk: Client) -> None:
    version = a_version(prompt="You help <b>kindly</b>.", keyterms=["SSO", "VPN"])
    page = desk.get(f"{DESK}/templateversion/{version.pk}/change/")
    said = text_of(page)
    for words in ("You help <b>kindly</b>.", "Hello.", "SSO · VPN", "gpt-4.1", "deepgram"):
        assert words in said
    assert b"<b>kindly" not in page.content
    assert b'name="_save"' not in page.content
    assert desk.post(f"{DESK}/templateversion/{version.pk}/change/", {"prompt": "x"}).status_code == 403
    assert desk.get(f"{DESK}/templateversion/add/").status_code == 403
    assert desk.post(f"{DESK}/templateversion/{version.pk}/delete/").status_code == 403


def test_a_version_that_could_not_be_prepared_says_why_and_can_be_tried_again(desk: Client, vapi: Server) -> None:
    version = a_version()
    TemplateVersion.objects.update(premade=Premade.FAILED, premade_error="Vapi refused with 401.")
    address = f"{DESK}/templateversion/{version.pk}"
    said = text_of(desk.get(f"{address}/change/"))
    assert "Could not be prepared: Vapi refused with 401. Calls work meanwhile" in said
    assert "Prepare again" in said
    assert desk.get(f"{address}/prepare/").status_code == 405
    said = text_of(desk.post(f"{address}/prepare/", follow=True))
    assert "Prepare again" not in said
    version.refresh_from_db()
    assert version.premade == Premade.READY


def test_an_older_version_answers_again_at_the_press_of_a_button(desk: Client) -> None:
    older = a_version()
    template = older.template
    template.prompt = "Newer words."
    template.save()
    newer = services.publish(template=template, note="", by="ann", at=timezone.now())
    address = f"{DESK}/templateversion/{older.pk}"
    assert "Let callers hear this version" in text_of(desk.get(f"{address}/change/"))
    assert "Let callers hear this version" not in text_of(desk.get(f"{DESK}/templateversion/{newer.pk}/change/"))
    assert desk.get(f"{address}/restore/").status_code == 405
    assert "New calls use it at once; the draft is as it was." in text_of(desk.post(f"{address}/restore/", follow=True))
    template.refresh_from_db()
    assert (template.published, template.prompt) == (older, "Newer words.")
    assert "this draft is different: instructions" in text_of(desk.get(f"{DESK}/assistanttemplate/{template.pk}/change/"))
    assert "Callers hear it already." in text_of(desk.post(f"{address}/restore/", follow=True))


def test_versions_are_prepared_again_from_the_list(desk: Client) -> None:
    version = a_version()
    desk.post(f"{DESK}/templateversion/", {"action": "prepare", "_selected_action": [version.pk]})
    version.refresh_from_db()
    assert version.premade == Premade.READY


def test_without_a_broker_publishing_works_and_the_version_waits(desk: Client, caplog: pytest.LogCaptureFixture) -> None:
    conf: Any = current_app.conf
    conf.task_always_eager = False
    before, conf.broker_url = conf.broker_url, NO_BROKER
    try:
        template = a_version().template
        desk.post(f"{DESK}/assistanttemplate/", {"action": "publish", "_selected_action": [template.pk]})
    finally:
        conf.broker_url = before
    assert TemplateVersion.objects.get(number=2).premade == Premade.WAITING
    assert "preparation could not be queued, the broker is away" in caplog.messages


@pytest.mark.parametrize(("typed", "kept"), [("+1 (555) 010-0100", LINE), ("+15550100100", LINE)])
def test_a_number_is_kept_as_digits(desk: Client, typed: str, kept: str) -> None:
    template = a_version().template
    desk.post(f"{DESK}/phoneline/add/", {"number": typed, "template": template.pk, "voicemail": "on", "callback_hours": 4})
    assert PhoneLine.objects.get().number == kept


@pytest.mark.parametrize("typed", ["5550100", "+0123456789", "+1555010010a", "tel:+15550100"])
def test_a_number_without_country_code_is_refused_with_an_example(desk: Client, typed: str) -> None:
    line = {"number": typed, "template": a_version().template.pk}
    target = {"number": typed, "name": "Tier 2", "slug": "tier2", "order": 1, "ring_seconds": 20, "talk_minutes": 240}
    for page in (desk.post(f"{DESK}/phoneline/add/", line), desk.post(f"{DESK}/handofftarget/add/", target)):
        assert "Write the number with + and country code, digits only, like +15550100100." in text_of(page)
    assert (PhoneLine.objects.count(), HandoffTarget.objects.count()) == (0, 0)


def test_a_slug_with_spaces_and_a_second_use_of_it_are_refused(desk: Client) -> None:
    a_version()
    page = text_of(desk.post(f"{DESK}/assistanttemplate/add/", filled(slug="has space")))
    assert "Enter a valid “slug”" in page
    taken = AssistantTemplate.objects.get().slug
    assert "already exists" in text_of(desk.post(f"{DESK}/assistanttemplate/add/", filled(slug=taken)))


def test_a_colleague_rings_for_a_sane_time(desk: Client) -> None:
    sent = {"number": "+15550100111", "name": "Tier 2", "slug": "tier2", "order": 1, "ring_seconds": 1, "talk_minutes": 240}
    assert "Choose from 5 to 120 seconds." in text_of(desk.post(f"{DESK}/handofftarget/add/", sent))
    desk.post(f"{DESK}/handofftarget/add/", sent | {"ring_seconds": 20, "talk_minutes": 240})
    assert HandoffTarget.objects.get().ring_seconds == 20


def a_colleague(**changes: Any) -> dict[str, Any]:
    """What a browser sends to add a colleague."""
    return {"number": "+15550100111", "name": "Tier 2", "slug": "tier2", "order": 1, "ring_seconds": 20, "talk_minutes": 240} | changes


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("+1 (900) 555-1234", "Callers cannot be handed to premium, shared-cost or satellite numbers"),
        ("+1 976 555 1234", "Callers cannot be handed to premium"),
        ("+1 212 976 1234", "Callers cannot be handed to premium"),
        ("+870 773 123 456", "Callers cannot be handed to premium"),
        ("+8816 3141 5926", "Callers cannot be handed to premium"),
        ("+882 16 123456", "Callers cannot be handed to premium"),
        ("+883 5100 123456", "Callers cannot be handed to premium"),
        ("+979 1 2345 6789", "Callers cannot be handed to premium"),
        ("+44 909 8790000", "Callers cannot be handed to premium"),
        ("+1 911 0000", "short codes cannot be called"),
        ("911", "Write the number with + and country code"),
        ("tel:+15550100111", "Write the number with + and country code"),
        ("sip:eve@example.com", "Write the number with + and country code"),
        ("+15550100111,,123", "Write the number with + and country code"),
        ("+15550100111;ext=1", "Write the number with + and country code"),
        ("+1555010011\u0661", "Write the number with + and country code"),
    ],
)
def test_a_number_that_could_run_up_a_bill_is_no_colleague(desk: Client, typed: str, sentence: str) -> None:
    assert sentence in text_of(desk.post(f"{DESK}/handofftarget/add/", a_colleague(number=typed)))
    assert HandoffTarget.objects.count() == 0


def test_the_order_of_colleagues_is_changed_in_their_list(desk: Client) -> None:
    first, second = a_target("first", order=1), a_target("second", order=2)
    sent = {"form-TOTAL_FORMS": 2, "form-INITIAL_FORMS": 2, "_save": "Save"}
    sent |= {"form-0-id": first.pk, "form-0-order": 5, "form-1-id": second.pk, "form-1-order": 2}
    sent |= {f"form-{place}-as_read": row.changed_at.isoformat() for place, row in enumerate((first, second))}
    page = desk.post(f"{DESK}/handofftarget/", sent, follow=True)
    assert "1 colleague was changed successfully." in text_of(page)
    assert list(HandoffTarget.objects.values_list("slug", flat=True)) == ["second", "first"]


def test_a_line_shows_its_people_in_the_order_they_are_called(desk: Client) -> None:
    line = a_line(targets=("billing", "tier2"))
    HandoffTarget.objects.filter(slug="billing").update(order=9)
    page = text_of(desk.get(f"{DESK}/phoneline/{line.pk}/change/"))
    assert page.index("2. Tier2 · +15550100111") < page.index("9. Billing · +15550100111")
    assert "Tier2, Billing" in text_of(desk.get(f"{DESK}/phoneline/"))


def test_calls_are_recorded_only_where_callers_are_told(desk: Client) -> None:
    sent = {"number": LINE, "template": a_version().template.pk, "callback_hours": 4, "record_calls": "on"}
    page = desk.post(f"{DESK}/phoneline/add/", {**sent, "disclosure": "  "})
    assert "Callers must be told before they are recorded: write the announcement first." in text_of(page)
    assert PhoneLine.objects.count() == 0
    team = Team.objects.create(slug="main", name="Support")
    desk.post(f"{DESK}/phoneline/add/", {**sent, "disclosure": "This call is recorded.", "team": team.pk})
    line = PhoneLine.objects.get()
    assert (line.record_calls, line.team, line.disclosure) == (True, team, "This call is recorded.")


@pytest.mark.parametrize("hours", ["0", "169", "-1", "x", ""])
def test_a_call_back_is_promised_within_a_week(desk: Client, hours: str) -> None:
    sent = {"number": LINE, "template": a_version().template.pk, "callback_hours": hours}
    assert desk.post(f"{DESK}/phoneline/add/", sent).status_code == 200
    assert PhoneLine.objects.count() == 0


def test_a_team_is_a_name_that_lines_can_bear(desk: Client) -> None:
    desk.post(f"{DESK}/team/add/", {"name": "Support", "slug": "support"})
    a_line(team=Team.objects.get())
    assert "Support support +15550100100" in text_of(desk.get(f"{DESK}/team/"))


def test_a_tool_shows_the_request_its_address_will_get(desk: Client, settings: Any) -> None:
    settings.TOOL_SIGNING_SECRET = ""
    tool = Tool.objects.create(**EMAIL_TOOL)
    page = unescape(desk.get(f"{DESK}/tool/{tool.pk}/change/").content.decode())
    assert "POST https://crm.example.com/account" in page
    assert '"email": "…"' in page
    assert '"from": "+15550100199"' in page
    assert SIGNATURE not in page
    assert "Requests are not signed." in page


def test_a_tool_says_whether_its_own_secret_is_there(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Tool.objects.create(**(EMAIL_TOOL | {"secret_env": "CRM_SECRET"}))
    address = f"{DESK}/tool/{tool.pk}/change/"
    assert "CRM_SECRET is not set on this server: the tool is not called." in text_of(desk.get(address))
    monkeypatch.setenv("CRM_SECRET", "hunter2")
    page = desk.get(address)
    assert "Requests are signed" in text_of(page)
    assert SIGNATURE in text_of(page)
    assert b"hunter2" not in page.content


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("9LIVES", "Write the name of an environment variable"),
        ("two words", "Write the name of an environment variable"),
        ("hunter-2", "Write the name of an environment variable"),
        ("TWILIO_AUTH_TOKEN", "This variable holds another secret of this server"),
        ("SECRET_KEY", "This variable holds another secret of this server"),
    ],
)
def test_a_tool_is_signed_with_a_variable_of_its_own(desk: Client, name: str, sentence: str) -> None:
    sent = {"name": "lookup", "description": "Looks up.", "url": "http://127.0.0.1:9000/crm", "timeout_s": "4"}
    assert sentence in text_of(desk.post(f"{DESK}/tool/add/", {**sent, "secret_env": name}))
    desk.post(f"{DESK}/tool/add/", {**sent, "secret_env": "CRM_SECRET"})
    assert Tool.objects.get().secret_env == "CRM_SECRET"


def test_a_form_takes_its_own_fields_and_no_other(desk: Client) -> None:
    version, other = a_version(), a_version()
    template = version.template
    sneaked = {"published": other.pk, "published_id": other.pk, "id": 99, "changed_at_0": "2020-01-01", "pk": 99}
    desk.post(f"{DESK}/assistanttemplate/{template.pk}/change/", filled(template, prompt="New.", **sneaked))
    template.refresh_from_db()
    assert (template.prompt, template.published) == ("New.", version)


def test_a_line_moved_to_another_agent_is_answered_by_it(desk: Client) -> None:
    line, other = a_line(), a_version()
    sent = {"number": line.number, "template": other.template.pk, "disclosure": "", "callback_hours": 4}
    desk.post(f"{DESK}/phoneline/{line.pk}/change/", sent | {"as_read": line.changed_at.isoformat()})
    assert line.rollouts.count() == 0
    assert "version 1" in text_of(desk.get(f"{DESK}/phoneline/"))


def test_a_tool_is_checked_and_an_empty_schema_means_no_arguments(desk: Client) -> None:
    sent = {"name": "lookup", "description": "Looks up.", "url": "http://127.0.0.1:9000/crm", "parameters": "", "timeout_s": "4"}
    desk.post(f"{DESK}/tool/add/", sent)
    assert Tool.objects.get().parameters == {}
    for change, sentence in [
        ({"url": "http://crm.example.com/"}, "Use an https:// address on port 443 or 8443."),
        ({"parameters": '{"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}'}, "is not a regular expression"),
        ({"name": "end_call"}, "This name belongs to a tool every agent has."),
        ({"parameters": '{"type": "object"}'}, 'needs "type": "object" and "properties"'),
        ({"parameters": "{"}, "Enter a valid JSON."),
        ({"timeout_s": "9"}, "Choose from 0.5 to 4.5 seconds."),
    ]:
        assert sentence in text_of(desk.post(f"{DESK}/tool/add/", {**sent, "name": "second", **change}))
    assert Tool.objects.count() == 1


@pytest.mark.parametrize(
    "typed",
    [
        "[" * 100_000,
        '{"a":' * 2000,
        '{"type": "object", "properties": {"a\\u0000": {"type": "string"}}}',
        '{"type": "object", "properties": {"a": {"type": "string", "title": "\\ud800"}}}',
        "1e999",
        "9" * 400,
        "NaN",
        '"' + "x" * 70_000 + '"',
        "{}" * 3,
        "\ufeff{}",
    ],
)
def test_hostile_json_in_a_form_is_a_sentence_at_its_field(desk: Client, typed: str) -> None:
    sent = {"name": "lookup", "description": "Looks up.", "url": "http://127.0.0.1:9000/crm", "timeout_s": "4"}
    page = desk.post(f"{DESK}/tool/add/", {**sent, "parameters": typed})
    assert page.status_code == 200
    assert "Enter a valid JSON." in text_of(page)
    assert Tool.objects.count() == 0


@pytest.mark.parametrize(
    "change",
    [
        *({"max_tokens": "9" * 400}, {"max_tokens": "9" * 5000}, {"temperature": "1e999"}, {"temperature": "nan"}),
        *({"wait_seconds": "-" + "9" * 400}, {"keyterms": "a\0b"}, {"name": "a\0b"}, {"prompt": "a\0b"}, {"slug": "ä"}),
        *({"keyterms": "\n".join("x" * 99_000)}, {"end_call_phrases": "x" * 200_000}, {"tools": ["999999999999999999999"]}),
    ],
)
def test_hostile_values_in_a_form_are_refused_and_nothing_is_stored(desk: Client, change: dict[str, Any]) -> None:
    assert desk.post(f"{DESK}/assistanttemplate/add/", filled(**change)).status_code == 200
    assert AssistantTemplate.objects.count() == 0


@pytest.mark.parametrize("order", ["9" * 400, "-1", "1.5", "x", "", "\0"])
def test_an_order_that_is_no_place_is_refused_in_the_list_and_the_form(desk: Client, order: str) -> None:
    target = a_target("first", order=3)
    sent = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": target.pk, "form-0-order": order, "_save": "Save"}
    sent["form-0-as_read"] = target.changed_at.isoformat()
    assert desk.post(f"{DESK}/handofftarget/", sent).status_code == 200
    assert desk.post(f"{DESK}/handofftarget/add/", a_colleague(order=order, slug="second")).status_code == 200
    assert list(HandoffTarget.objects.values_list("slug", "order")) == [("first", 3)]


@pytest.mark.parametrize("key", ["9" * 30, "x", "-1", "", "\0", "1e5"])
def test_a_key_that_is_no_row_costs_nothing(desk: Client, key: str) -> None:
    version = a_version()
    for page in ("assistanttemplate", "handofftarget", "tool", "phoneline", "team", "templateversion"):
        for action in ("publish", "prepare", "delete_selected", "nonsense"):
            sent = {"action": action, "_selected_action": [key], "form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": key}
            assert desk.post(f"{DESK}/{page}/", sent | {"form-0-order": 1, "_save": "1"}).status_code < 500
            assert desk.post(f"{DESK}/{page}/", sent).status_code < 500
        assert desk.get(f"{DESK}/{page}/{key or 'x'}/change/", follow=True).status_code < 500
    line = {"number": LINE, "template": version.template.pk, "callback_hours": 4}
    for change in ({"template": key}, {"handoff": [key]}, {"team": key or "x"}):
        assert desk.post(f"{DESK}/phoneline/add/", line | change).status_code == 200
    assert (PhoneLine.objects.count(), TemplateVersion.objects.count()) == (0, 1)


def test_an_empty_schema_is_an_empty_field(desk: Client) -> None:
    tool = Tool.objects.create(**(EMAIL_TOOL | {"parameters": {}}))
    for page in ("add", f"{tool.pk}/change"):
        shown = desk.get(f"{DESK}/tool/{page}/").content.decode()
        assert re.search(r'<textarea name="parameters"[^>]*>\s*</textarea>', shown)


def test_a_schema_is_shown_so_that_people_can_read_it(desk: Client) -> None:
    tool = Tool.objects.create(**EMAIL_TOOL)
    page = desk.get(f"{DESK}/tool/{tool.pk}/change/").content.decode()
    assert '{\n  "type": "object",' in unescape(page)


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("assistanttemplate", "No agent yet. Add one, write its greeting and instructions, and publish it"),
        ("templateversion", "No version yet. Open an agent and press “Save and publish”."),
        ("phoneline", "No phone line yet. Publish an agent, then add your Twilio number here."),
        ("tool", "No tool yet."),
        ("handofftarget", "Nobody yet. Add the people callers can be handed to"),
        ("team", "No team yet. You need none"),
    ],
)
def test_an_empty_list_says_what_to_do_next(desk: Client, page: str, sentence: str) -> None:
    assert sentence in text_of(desk.get(f"{DESK}/{page}/"))


@pytest.mark.parametrize("page", ["assistanttemplate", "templateversion", "phoneline", "tool", "handofftarget", "team"])
def test_a_list_costs_the_same_however_long_it_is(desk: Client, page: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            assert desk.get(f"{DESK}/{page}/").status_code == 200
        return len(seen)

    def more(n: int) -> None:
        line = a_line(number=f"+1555010020{n}", team=Team.objects.create(slug=f"team-{n}", name=f"Team {n}"))
        tool = Tool.objects.create(**(EMAIL_TOOL | {"name": f"tool-{n}"}))
        line.template.tools.add(tool)
        line.handoff.add(a_target(f"tier-{n}"))

    more(0)
    queries()
    first = queries()
    for n in range(1, 6):
        more(n)
    assert queries() == first


def test_people_without_a_log_in_are_asked_for_one(client: Client) -> None:
    for page in ("assistanttemplate/", "templateversion/1/prepare/"):
        assert client.post(f"{DESK}/{page}").status_code == 302


def test_somebody_who_may_only_look_reads_lists_as_they_are_typed(client: Client) -> None:
    line = a_line(hours=["Mon-Fri 9:00-17:00", "Sat 10-12"])
    AssistantTemplate.objects.update(keyterms=["SSO", "VPN"])
    client.force_login(a_person("auditor", "ada"))
    shown = text_of(client.get(f"{DESK}/phoneline/{line.pk}/change/"))
    assert "Hours: Mon-Fri 9:00-17:00 · Sat 10-12" in shown
    assert "Holidays: none" in shown
    assert "Words to listen for: SSO · VPN" in text_of(client.get(f"{DESK}/assistanttemplate/{line.template.pk}/change/"))


def test_somebody_who_may_only_look_cannot_publish_restore_or_prepare(client: Client) -> None:
    version = a_version()
    client.force_login(User.objects.create_user("bob", password="long-enough-1", is_staff=True))
    for act in ("prepare", "restore"):
        assert client.post(f"{DESK}/templateversion/{version.pk}/{act}/").status_code == 403
    assert client.post(f"{DESK}/assistanttemplate/", {"action": "publish", "_selected_action": [version.template.pk]}).status_code == 403
    assert TemplateVersion.objects.count() == 1


def test_the_draft_and_what_callers_hear_are_compared_by_tools_too() -> None:
    version = a_version()
    template = AssistantTemplate.objects.get(pk=version.template.pk)
    assert services.changes(template) == []
    template.tools.add(Tool.objects.create(**EMAIL_TOOL))
    assert services.changes(template) == ["tools"]


def test_how_long_things_are_kept_is_said_on_the_agent_and_on_the_line_and_nothing_outlasts_the_transcript(desk: Client) -> None:
    template = a_version().template
    address = f"{DESK}/assistanttemplate/{template.pk}/change/"
    assert "How long things are kept" in text_of(desk.get(address))
    page = text_of(desk.post(address, filled(template, keep_days=7, keep_sound_days=8)))
    assert "This may go before the transcript, not after it." in page
    desk.post(address, filled(template, keep_days=7, keep_sound_days=0, keep_bodies_days=""))
    assert AssistantTemplate.objects.values_list("keep_days", "keep_sound_days", "keep_bodies_days").get() == (7, 0, None)
    sent = {"number": LINE, "template": template.pk, "callback_hours": 4, "disclosure": "", "keep_days": "0", "all_party_consent": "on"}
    desk.post(f"{DESK}/phoneline/add/", sent)
    assert PhoneLine.objects.values_list("keep_days", "keep_sound_days", "all_party_consent").get() == (0, None, True)
