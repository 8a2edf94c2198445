"""Agents as code: the same file makes the same agents, a wrong one makes none, and what is exported comes back."""

from __future__ import annotations

import copy
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents import as_code, as_code_export, as_code_import, lines
from agents.models import AgentWords, AssistantTemplate, HandoffTarget, PhoneLine, Premade, Rollout, Team, TemplateVersion, Tool
from agents.payload import VersionWords
from tests.agents.words import SAID, SERVER, TOOLS, every_agent
from tests.bridge.http_server import Server, reply
from tests.builders import EPOCH

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent.parent
EXAMPLE: dict[str, Any] = json.loads(
    """{"templates": [{"slug": "support", "name": "Support line", "prompt": "You are …", "first_message": "Hi, …", "first_message_interruptible": true,
                "model": {"provider": "openai", "model": "gpt-4.1"}, "voice": {"provider": "11labs", "voiceId": "21m00Tcm4TlvDq8ikWAM"},
                "transcriber": {"provider": "deepgram", "model": "nova-3", "language": "en"}, "barge_in": "instant", "tools": ["get_user_account", "transfer_to_human"]}],
 "tools": [{"name": "get_user_account", "description": "…", "url": "https://crm.example/api/account", "parameters": {"type": "object", "properties": {"email": {"type": "string"}}}}],
 "handoff_targets": [{"slug": "tier2", "name": "Tier 2", "number": "+15550100111", "order": 1}],
 "teams": [{"slug": "main", "name": "Support"}],
 "lines": [{"number": "+15550100100", "team": "main", "template": "support", "handoff": ["tier2"], "voicemail": true, "disclosure": "This call is answered by an AI agent and may be recorded."}]}"""  # noqa: E501
)
MODELS = (Rollout, PhoneLine, AssistantTemplate, Tool, HandoffTarget, Team)


def bring_in(document: Any, **options: Any) -> as_code_import.Imported:
    usual: dict[str, Any] = {"draft": False, "dry_run": False, "note": "", "by": "ann", "at": EPOCH}
    return as_code_import.bring_in(document, **(usual | options))


def problems_of(document: Any, **options: Any) -> dict[str, str]:
    """What the import says; it must have stored nothing."""
    before = rows()
    with pytest.raises(as_code.NotImportable) as refused:
        bring_in(document, **options)
    assert rows() == before
    return refused.value.problems


def rows() -> list[Any]:
    return [list(model._default_manager.order_by("pk").values()) for model in (*MODELS, TemplateVersion)]


def changed(**changes: Any) -> dict[str, Any]:
    """The example with other keys in the first object of a list: changed(templates={"name": "x"})."""
    document = copy.deepcopy(EXAMPLE)
    for listing, keys in changes.items():
        document[listing][0] |= keys
    return document


def exported() -> str:
    return as_code_export.text(as_code_export.document())


def empty_the_database() -> None:
    AssistantTemplate.objects.update(published=None)
    for model in (Rollout, TemplateVersion, *MODELS):
        model._default_manager.all().delete()


def test_the_example_of_the_contract_answers_its_line() -> None:
    imported = bring_in(EXAMPLE, note="first", by="agents_import")
    line = PhoneLine.objects.get(number="+15550100100")
    version = line.rollouts.get().version
    assert imported.versions == (version.pk,)
    assert (version.number, version.note, version.published_by, version.prompt) == (1, "first", "agents_import", "You are …")
    assert [tool["name"] for tool in version.tools] == ["get_user_account"]
    assert (version.may_transfer, version.may_end_call) == (True, False)
    assert line.team is not None
    assert (line.team.slug, line.template.slug, [target.slug for target in line.handoff.all()]) == ("main", "support", ["tier2"])
    assert {change.action for change in imported.changes} == {"created"}


def test_importing_twice_changes_nothing_and_publishes_nothing() -> None:
    bring_in(EXAMPLE)
    before = rows()
    again = bring_in(EXAMPLE)
    assert rows() == before
    assert again.versions == ()
    assert {change.action for change in again.changes} == {"unchanged"}


def test_a_draft_is_published_by_the_next_import_without_draft() -> None:
    assert bring_in(EXAMPLE, draft=True).versions == ()
    assert TemplateVersion.objects.count() == 0
    [change] = [change for change in bring_in(EXAMPLE).changes if change.version]
    assert str(change) == "unchanged  template support: published as version 1"


def test_a_change_says_which_keys_and_makes_the_next_version() -> None:
    bring_in(EXAMPLE)
    news = changed(templates={"voice": {"voiceId": "bella"}, "tools": ["end_call"]}, lines={"team": None})
    said = [str(change) for change in bring_in(news).changes]
    assert said == [
        "unchanged  team main",
        "unchanged  tool get_user_account",
        "unchanged  target tier2",
        "changed    template support: tools, voice.voiceId; published as version 2",
        "changed    line +15550100100: team",
    ]
    assert Rollout.objects.get().version.number == 2


def test_a_tool_that_changed_makes_the_next_version_of_the_template_beside_it() -> None:
    bring_in(EXAMPLE)
    said = [str(change) for change in bring_in(changed(tools={"secret": {"env": "CRM_SECRET"}})).changes]
    assert "changed    tool get_user_account: secret.env" in said
    assert "unchanged  template support: published as version 2" in said
    assert TemplateVersion.objects.get(number=2).tools[0]["secret_env"] == "CRM_SECRET"


def test_a_dry_run_says_what_would_happen_and_does_nothing() -> None:
    before = rows()
    dry = bring_in(EXAMPLE, dry_run=True)
    assert rows() == before
    assert dry.versions == ()
    wet = bring_in(EXAMPLE)
    assert dry.changes == wet.changes


def test_what_the_file_does_not_name_is_left_alone() -> None:
    bring_in(EXAMPLE)
    bring_in({"templates": [{"slug": "night", "name": "Night", "prompt": "p", "first_message": "Hi", "voice": {"voiceId": "v"}}]})
    bring_in({"lines": [{"number": "+15550100101", "template": "support", "team": "main", "handoff": ["tier2"]}]})
    assert set(AssistantTemplate.objects.values_list("slug", flat=True)) == {"support", "night"}
    assert PhoneLine.objects.count() == 2
    night = AssistantTemplate.objects.get(slug="night")
    assert (night.may_transfer, night.may_end_call, list(night.tools.all())) == (True, True, [])


def test_a_key_left_out_means_its_default_again() -> None:
    bring_in(changed(templates={"wait_seconds": 2.0}, lines={"callback_hours": 9}))
    bring_in(EXAMPLE)
    assert AssistantTemplate.objects.get().wait_seconds == 0.4
    assert PhoneLine.objects.get().callback_hours == 4


def test_a_line_moved_to_another_template_is_answered_by_it() -> None:
    bring_in(EXAMPLE)
    bring_in({"templates": [{**EXAMPLE["templates"][0], "slug": "other"}]})
    bring_in({"lines": [EXAMPLE["lines"][0] | {"template": "other"}]})
    answer = lines.answer("+15550100100", draw=0.5)
    assert answer is not None
    assert answer.version is not None
    assert answer.version.words.slug == "other"
    assert Rollout.objects.count() == 0


def test_all_that_is_wrong_is_said_at_once_each_under_its_path() -> None:
    document = changed(
        templates={"modle": {}, "voice": {"voiceId": "v", "sped": 1}, "barge_in": "later", "id": 7, "published": 1, "tools": ["nope"]},
        tools={"url": "http://10.0.0.1/", "timeout_s": "4", "parameters": {"type": "object"}, "secret": "hunter2"},
        handoff_targets={"number": "+19005551234", "ring_seconds": 1},
        teams={"slug": "has space"},
        lines={"number": "0100", "record_calls": True, "disclosure": " ", "callback_hours": 0, "handoff": "tier2"},
    )
    found = problems_of(document | {"templats": []})
    assert found == {
        "templats": "Unknown key; did you mean templates?",
        "teams[0].slug": "Enter a valid “slug” consisting of letters, numbers, underscores or hyphens.",
        "tools[0].secret": as_code.NO_SECRETS_HERE,
        "tools[0].url": "Use an https:// address on port 443 or 8443.",
        "tools[0].timeout_s": "Write a number.",
        "tools[0].parameters": 'The outermost part needs "type": "object" and "properties".',
        "handoff_targets[0].number": "Callers cannot be handed to premium, shared-cost or satellite numbers: a call there may cost a lot.",
        "handoff_targets[0].ring_seconds": "Choose from 5 to 120 seconds.",
        "templates[0].modle": "Unknown key; did you mean model?",
        "templates[0].id": "Unknown key; docs/agents-as-code.md lists all.",
        "templates[0].published": "Unknown key; docs/agents-as-code.md lists all.",
        "templates[0].voice.sped": "Unknown key; did you mean speed?",
        "templates[0].barge_in": "Choose one of instant, confirm.",
        "templates[0].tools[0]": 'There is no "nope", neither in this file nor in the database.',
        "lines[0].number": "Write the number with + and country code, digits only, like +15550100100.",
        "lines[0].handoff": "Write a list of names.",
        "lines[0].record_calls": "Callers must be told before they are recorded: write the announcement first.",
        "lines[0].callback_hours": "Choose from 1 to 168 hours.",
        "lines[0].team": 'There is no "main", neither in this file nor in the database.',
    }


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "the file"),
        ({"templates": {}}, "templates"),
        ({"templates": None}, "templates"),
        ({"templates": [7]}, "templates[0]"),
        (changed(templates={"voice": "bella"}), "templates[0].voice"),
        (changed(templates={"name": None}), "templates[0].name"),
        (changed(templates={"name": "x" * 41}), "templates[0].name"),
        (changed(templates={"max_duration_s": 60.5}), "templates[0].max_duration_s"),
        (changed(templates={"denoise": 1}), "templates[0].denoise"),
        (changed(templates={"model": {"temperature": True}}), "templates[0].model.temperature"),
        (changed(templates={"model": {"provider": "anthropic", "model": "gpt-4.1"}}), "templates[0].model.model"),
        (changed(templates={"transcriber": {"keyterms": "SSO"}}), "templates[0].transcriber.keyterms"),
        (changed(templates={"tools": ["transfer_to_human", "transfer_to_human"]}), "templates[0].tools[1]"),
        (changed(tools={"name": "end_call"}), "tools[0].name"),
        (changed(tools={"parameters": []}), "tools[0].parameters"),
        (changed(tools={"secret": {"env": "9 lives"}}), "tools[0].secret.env"),
        (changed(tools={"secret": {"env": "TWILIO_AUTH_TOKEN"}}), "tools[0].secret.env"),
        (changed(tools={"secret": {"env": "CRM", "value": "x"}}), "tools[0].secret.value"),
        (changed(tools={"url": "https://crm.example/" + "x" * 500}), "tools[0].url"),
        (changed(handoff_targets={"order": -1}), "handoff_targets[0].order"),
        (changed(lines={"template": None}), "lines[0].template"),
        (changed(lines={"team": ["main"]}), "lines[0].team"),
        (changed(lines={"disclosure": "x" * 501}), "lines[0].disclosure"),
        ({**EXAMPLE, "teams": [{"slug": "main", "name": "a"}, {"slug": "main", "name": "b"}]}, "teams[1].slug"),
        (changed(teams={"na\nme": 1}), 'teams[0]."na\\nme"'),
    ],
)
def test_one_wrong_value_is_found_at_its_place(document: Any, path: str) -> None:
    assert path in problems_of(document)


def test_a_needed_key_is_missed() -> None:
    assert problems_of({kind.listing: [{}] for kind in as_code.KINDS}).items() >= {
        (path, "This key is needed.")
        for path in (
            *("teams[0].slug", "teams[0].name", "tools[0].name", "tools[0].description", "tools[0].url"),
            *("handoff_targets[0].slug", "handoff_targets[0].name", "handoff_targets[0].number"),
            *("templates[0].slug", "templates[0].name", "templates[0].prompt", "templates[0].voice.voiceId"),
            *("lines[0].number", "lines[0].template"),
        )
    }


def test_a_stored_tool_that_went_wrong_stops_the_publication_and_not_the_draft() -> None:
    bring_in(EXAMPLE)
    Tool.objects.update(url="http://10.0.0.1/")
    alone = {"templates": [EXAMPLE["templates"][0] | {"prompt": "New."}]}
    assert list(problems_of(alone)) == ["templates[0].tools[0]"]
    bring_in(alone, draft=True)
    assert AssistantTemplate.objects.get().prompt == "New."


def test_another_provider_does_not_inherit_the_model_of_the_usual_one() -> None:
    bring_in(changed(templates={"transcriber": {"provider": "azure", "language": "en-US"}}))
    assert AssistantTemplate.objects.get().transcriber_model == ""


def test_a_prompt_is_words_and_never_a_program() -> None:
    prompt = "{% load x %}{{ settings.SECRET_KEY }} {{name}} ${7*7} {{''.__class__}} %(x)s"
    bring_in(changed(templates={"prompt": prompt}))
    rollout = Rollout.objects.get()
    request = lines.conversation_request(
        line_id=rollout.line.pk, version_id=rollout.version.pk, call_sid="CA1", n=0, epoch=0, server=SERVER
    )
    assert request["assistant"]["model"]["messages"][0]["content"] == prompt
    assert json.loads(exported())["templates"][0]["prompt"] == prompt


# -- there and back ----------------------------------------------------------------------------------------------------

SLUGS = st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True)
NUMBERS = st.from_regex(r"\+49[1-8][0-9]{7,9}", fullmatch=True).filter(lambda number: not number.startswith("+49137"))
TARGETS = st.fixed_dictionaries(
    {"slug": SLUGS, "name": SAID, "number": NUMBERS, "order": st.integers(0, 9), "ring_seconds": st.integers(5, 120)}
)
LINES = st.fixed_dictionaries(
    {
        "number": NUMBERS,
        "name": st.one_of(st.just(""), SAID),
        "voicemail": st.booleans(),
        "callback_hours": st.integers(1, 168),
        "disclosure": SAID,
        "record_calls": st.booleans(),
    }
)


def a_house(
    agents: dict[str, VersionWords], tools: list[Any], targets: list[Any], teams: dict[str, str], lines: list[Any], pick: st.DataObject
) -> None:
    """Rows as a desk may leave them, with references drawn at random."""
    made_tools = [Tool.objects.create(**tool) for tool in tools]
    made_targets = [HandoffTarget.objects.create(**target) for target in targets]
    made_teams = [Team.objects.create(slug=slug, name=name) for slug, name in teams.items()]
    templates = []
    for slug, words in agents.items():
        fields = {name: getattr(words, name) for name in ("name", *AgentWords.word_fields())}
        template = AssistantTemplate.objects.create(slug=slug, **fields)
        template.tools.set(pick.draw(st.lists(st.sampled_from(made_tools), unique=True)) if made_tools else [])
        templates.append(template)
    for line in lines if templates else []:
        team = pick.draw(st.sampled_from([None, *made_teams]))
        row = PhoneLine.objects.create(**line, team=team, template=pick.draw(st.sampled_from(templates)))
        row.handoff.set(pick.draw(st.lists(st.sampled_from(made_targets), unique=True)) if made_targets else [])


@pytest.mark.long
@hypothesis_settings(max_examples=15)
@given(
    agents=st.dictionaries(SLUGS, every_agent(), max_size=2),
    tools=st.lists(TOOLS, max_size=2, unique_by=lambda tool: tool["name"]),
    targets=st.lists(TARGETS, max_size=3, unique_by=lambda target: target["slug"]),
    teams=st.dictionaries(SLUGS, SAID, max_size=2),
    lines=st.lists(LINES, max_size=2, unique_by=lambda line: line["number"]),
    pick=st.data(),
)
def test_an_export_imported_into_an_empty_database_exports_the_same(
    agents: dict[str, VersionWords], tools: list[Any], targets: list[Any], teams: dict[str, str], lines: list[Any], pick: st.DataObject
) -> None:
    empty_the_database()
    a_house(agents, tools, targets, teams, lines, pick)
    first = exported()
    empty_the_database()
    imported = bring_in(as_code_import.parse(first.encode()))
    assert exported() == first
    assert len(imported.versions) == len(agents)
    assert {change.action for change in bring_in(json.loads(first)).changes} <= {"unchanged"}


def test_the_export_is_canonical_and_says_every_key() -> None:
    bring_in(EXAMPLE)
    written = exported()
    assert written == json.dumps(json.loads(written), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert "You are …" in written
    for kind in as_code.KINDS:
        [each] = json.loads(written)[kind.listing]
        assert set(each) == {*kind.references, *(key.partition(".")[0] for key in kind.keys)}


def test_every_field_a_manager_can_edit_is_in_the_file() -> None:
    for kind in as_code.KINDS:
        ours = {*kind.keys.values(), *kind.references, *(as_code.GRANTS.values() if kind.listing == "templates" else ())}
        fields = {field.name for field in (*kind.model._meta.fields, *kind.model._meta.many_to_many)}
        assert fields - ours <= {"id", "published", "changed_at", "members"}


def test_targets_are_written_in_the_order_they_are_called() -> None:
    targets = [{"slug": slug, "name": slug, "number": "+4930123456", "order": order} for slug, order in (("a", 3), ("b", 1), ("c", 1))]
    bring_in(changed(lines={"handoff": ["a", "b", "c"]}) | {"handoff_targets": targets})
    written = json.loads(exported())
    assert [target["slug"] for target in written["handoff_targets"]] == written["lines"][0]["handoff"] == ["b", "c", "a"]


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def vapi(settings: Any) -> Iterator[Server]:
    """Work that would be queued is done at once, at a Vapi of our own."""
    with Server(reply(201, {"id": "a-1"})) as server:
        settings.VAPI_BASE_URL = server.url
        current_app.conf.task_always_eager = True
        yield server
        current_app.conf.task_always_eager = False


def ran(command: str, *args: str, **streams: io.StringIO) -> str:
    out = io.StringIO()
    call_command(command, *args, stdout=out, **streams)
    return out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_the_command_publishes_and_has_the_version_prepared(vapi: Server, tmp_path: Path) -> None:
    file = tmp_path / "agents.json"
    file.write_text(json.dumps(EXAMPLE))
    said = ran("agents_import", str(file), "--dry-run")
    assert "created    template support: published as version 1" in said
    assert "This was a dry run: nothing is changed." in said
    assert (rows()[0], vapi.asked) == ([], [])
    wrong = io.StringIO()
    assert "5 created, 0 changed, 0 unchanged.\n" in ran("agents_import", str(file), "--note", "from code", stderr=wrong)
    assert wrong.getvalue() == ""
    version = TemplateVersion.objects.get()
    assert (version.premade, version.note, version.published_by) == (Premade.READY, "from code", "agents_import")
    assert "0 created, 0 changed, 5 unchanged.\n" in ran("agents_import", str(file))
    assert len(vapi.asked) == 1


@pytest.mark.django_db(transaction=True)
def test_without_a_broker_the_import_stands_and_says_what_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "agents.json").write_text(json.dumps(EXAMPLE))
    said = io.StringIO()
    conf: Any = current_app.conf
    before, conf.broker_url = conf.broker_url, "redis://127.0.0.1:1/0"
    try:
        call_command("agents_import", str(tmp_path / "agents.json"), stdout=io.StringIO(), stderr=said)
    finally:
        conf.broker_url = before
    assert TemplateVersion.objects.get().premade == Premade.WAITING
    assert "press “Prepare again” on the version; calls work meanwhile." in said.getvalue()


def test_the_file_may_come_from_standard_input_and_the_export_may_go_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(EXAMPLE).encode())))
    ran("agents_import", "-", "--draft")
    ran("agents_export", "--output", str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text() == ran("agents_export")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the file: It is not JSON. Look at line 1, column 1."),
        (b'{"lines": [\n1,,2]}', "the file: It is not JSON. Look at line 2, column 3."),
        (b"[" * 100_000, "the file: It is not JSON."),
        (b'"' + b"a" * (as_code_import.MAX_BYTES + 9) + b'"', "the file: It is longer than 16777216 bytes."),
        (b'{"a": "\\u0000"}', "the file: It holds a NUL character."),
        (b'{"lines": 3}', "lines: Write a list."),
        ('{"\u2028\x1b[31m": 3}'.encode().replace(b"\x1b", b"\\u001b"), '"\\u2028\\u001b[31m": Unknown key'),
    ],
)
def test_a_wrong_file_is_one_line_for_each_problem_and_exit_code_2(tmp_path: Path, body: bytes, said: str) -> None:
    file = tmp_path / "agents.json"
    file.write_bytes(body)
    with pytest.raises(CommandError) as refused:
        ran("agents_import", str(file))
    assert refused.value.returncode == 2
    first, second = str(refused.value).splitlines()
    assert (first, second[: len(said)]) == ("Nothing was imported.", said)


@pytest.mark.parametrize(
    "args",
    [
        ("agents_import", "/no/such/file"),
        ("agents_export", "--output", "/no/such/directory/file"),
        ("agents_import", "-", "--note", "x" * 201),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_exit_code_2(args: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused:
        ran(*args)
    assert refused.value.returncode == 2
    assert str(refused.value).count("\n") == 0


def test_a_secret_written_into_the_file_is_refused_and_not_repeated() -> None:
    for secret in ("hunter2-hunter2", ["hunter2"], {"env": "hunter2-hunter2"}, {"env": ["hunter2"]}):
        found = problems_of(changed(tools={"secret": secret}))
        assert found
        assert "hunter2" not in " ".join(found.values())


# -- the page of keys --------------------------------------------------------------------------------------------------


def test_the_page_of_keys_says_every_key_and_its_default() -> None:
    page = (ROOT / as_code.KEYS_PAGE).read_text()
    lines = re.findall(r"^\| `([a-z_]+\[\]\.[A-Za-z_.]+)` \| ([^|]+?) \|", page, re.MULTILINE)
    told = dict(lines)
    assert len(lines) == len(told), "a key is said twice"
    keys: dict[str, str] = {}
    for kind in as_code.KINDS:
        for key in kind.keys:
            value = as_code.default(kind, key, {})
            shown = "null" if kind.keys[key] == "secret_env" else json.dumps(value, ensure_ascii=False)
            keys[f"{kind.listing}[].{key}"] = "needed" if as_code.is_needed(kind, key) else f"`{shown}`"
        for key, reference in kind.references.items():
            keys[f"{kind.listing}[].{key}"] = "needed" if reference.needed else "`[]`" if reference.many else "`null`"
    keys["templates[].tools"] = '`["transfer_to_human", "end_call"]`'
    assert told == keys
