"""What a model asks is read in every shape, granted once, answered in time, and written down without its secrets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone

from agents import lines, tools
from agents.tools import ToolAnswer
from calls import builtin_tools, services, tool_calls, tool_runs
from calls.models import CallSession, EndReason, OutboxCommand, Rung, Status, ToolRun
from calls.tool_calls import ToolCall, asked
from tests.bridge.http_server import Server, hang, reply
from tests.builders import QuietPublisher, at_once
from tests.calls.doors import CALL_SID, NUMBER, WIRE, a_line

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = {"type": "string"}
EMAIL = {"type": "object", "properties": {"email": TEXT, "password": TEXT, "pin": TEXT, "note": TEXT}, "required": ["email"]}
TOOL = {"name": "lookup", "description": "d", "url": "https://crm.example.com/", "parameters": EMAIL, "timeout_s": 4.0}
ALEX = {"email": "alex@acme.test"}


@pytest.fixture
def crm() -> Iterator[Server]:
    with Server(reply(200, {"plan": "pro"})) as server:
        yield server


@pytest.fixture
def call(crm: Server) -> CallSession:
    lines.forget()
    a_line(tools=[TOOL | {"url": f"{crm.url}/crm"}])
    return a_call()


def a_call(sid: str = CALL_SID) -> CallSession:
    opened = services.open_call(sid=sid, account_sid="AC1", from_number="+15550100199", to_number=NUMBER, at=timezone.now())
    assert opened is not None
    return opened


def ask(call: CallSession, crm: Server, *calls: ToolCall) -> list[dict[str, str]]:
    return tool_calls.answer(call=call, calls=list(calls), allowed=[f"127.0.0.1:{crm.port}"])


def said(result: Mapping[str, str]) -> str:
    return result.get("error") or result["result"]


# -- reading ---------------------------------------------------------------------------------------------------------------


def wire(name: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((WIRE / "vapi" / "webhooks" / f"{name}.json").read_text())["message"]
    return message


@pytest.mark.parametrize("name", ["tool-calls.object-arguments", "tool-calls.string-arguments", "tool-calls.docs-flat-form"])
@pytest.mark.parametrize("without", [(), ("toolCallList",), ("toolWithToolCallList",)])
def test_every_recorded_shape_says_the_same(name: str, without: tuple[str, ...]) -> None:
    message = {key: value for key, value in wire(name).items() if key not in without}
    [escalate] = [each for each in asked(message) if each.id == "call_Zp71mBq2"]
    assert (escalate.name, escalate.problem) == ("escalate_to_human", "")
    assert (escalate.arguments["reason"], escalate.arguments["department"]) == ("SSO lockout", "technical")


def test_the_oldest_shape_has_no_id_and_gets_one_that_a_repeat_has_too() -> None:
    first, again = asked(wire("function-call.legacy")), asked(wire("function-call.legacy"))
    assert first == again
    assert (first[0].name, first[0].arguments) == ("escalate_to_human", {"reason": "SSO lockout", "department": "technical"})
    [later] = asked(wire("function-call.legacy") | {"timestamp": 1})
    [elsewhere] = asked(wire("function-call.legacy") | {"call": {"id": "another"}})
    assert len({first[0].id, later.id, elsewhere.id}) == 3
    assert all(len(each.id) <= tool_calls.ID_CHARACTERS for each in (*first, later, elsewhere))


def test_the_oldest_shape_is_answered_the_way_it_knows() -> None:
    results = [{"toolCallId": "x", "name": "n", "error": "No."}]
    assert tool_calls.response(results, kind="function-call") == {"result": "No.", "results": results}
    assert tool_calls.response(results, kind="tool-calls") == {"results": results}
    assert "result" in tool_calls.response([], kind="function-call")


def listed(*items: Any) -> list[ToolCall]:
    return asked({"toolCallList": list(items)})


def test_of_two_calls_with_one_id_the_first_counts() -> None:
    items: list[Any] = [{"id": "a", "name": name, "parameters": {}} for name in ("one", "two")]
    assert [(each.id, each.name) for each in listed(*items)] == [("a", "one")]


@pytest.mark.parametrize("item", [None, 7, "x", [], {}, {"id": 7, "name": "n"}, {"id": "", "name": "n"}, {"name": "n"}])
def test_what_cannot_be_answered_by_any_id_is_left_out(item: Any) -> None:
    assert [each.id for each in listed(item, {"id": "b", "name": "n"})] == ["b"]


@pytest.mark.parametrize("item", [{"id": "a"}, {"id": "a", "name": 7}, {"id": "a", "name": " \n"}, {"id": "x" * 101, "name": "n"}])
def test_an_id_with_nothing_to_run_is_answered_all_the_same(item: dict[str, Any]) -> None:
    [each] = listed(item)
    assert (each.id, bool(each.problem)) == (item["id"], True)


@pytest.mark.parametrize("given", [{}, "{}", "", " ", None])
def test_no_arguments_are_none(given: Any) -> None:
    assert listed({"id": "a", "function": {"name": "n", "arguments": given}}) == [ToolCall("a", "n")]


BAD_ARGUMENTS = [
    *("{", "[]", "7", '"x"', "NaN", '{"a": NaN}', '{"a": 1e999}', '{"a": 99999999999999999999}', '{"a": "\\ud800"}', '{"a": "\\u0000"}'),
    *("[" * 200 + "]" * 200, '{"a":' * 100 + "1" + "}" * 100, '{"a": "' + "x" * 70_000 + '"}', 7, [], True, {"a": "x" * 70_000}),
]


@pytest.mark.parametrize("given", BAD_ARGUMENTS)
def test_arguments_nobody_can_read_are_a_problem_and_not_an_error(given: Any) -> None:
    [each] = listed({"id": "a", "function": {"name": "n", "arguments": given}})
    assert (each.arguments, each.problem) == ({}, tool_calls.UNREADABLE)


# -- what is granted -------------------------------------------------------------------------------------------------------


def test_a_tool_is_sent_the_arguments_and_the_call_and_its_answer_is_told(call: CallSession, crm: Server) -> None:
    [answered] = ask(call, crm, ToolCall("t1", "lookup", ALEX))
    assert answered == {"toolCallId": "t1", "name": "lookup", "result": '{"plan":"pro"}'}
    [request] = crm.asked
    told = {"call_sid": CALL_SID, "from": "+15550100199", "to": NUMBER, "tool_call_id": "t1"}
    assert request.json == {**ALEX, "call": told}
    assert request.headers["X-Supportvoice-Tool-Call"] == "t1"


def test_nothing_is_sent_before_the_arguments_fit(call: CallSession, crm: Server) -> None:
    [answered] = ask(call, crm, ToolCall("t1", "lookup", {"mail": "x"}))
    assert answered["error"] == "Nothing was done: email is missing. Ask the caller if you do not know, then try again."
    [again] = ask(call, crm, ToolCall("t2", "lookup", ALEX))
    assert "result" in again
    assert len(crm.asked) == 1


def test_what_the_tool_does_not_know_is_not_sent_and_stands_in_the_log(call: CallSession, crm: Server) -> None:
    ask(call, crm, ToolCall("t1", "lookup", ALEX | {"customer_id": 42, "call": {"from": "+15550100666"}}))
    assert set(crm.asked[0].json) == {"email", "call"}
    assert crm.asked[0].json["call"]["from"] == "+15550100199"
    assert ToolRun.objects.get().arguments["customer_id"] == 42


def test_a_version_with_a_broken_schema_is_not_called(call: CallSession, crm: Server) -> None:
    assert call.version is not None
    call.version.tools[0]["parameters"] = {"type": "object", "properties": {"email": {"type": "string", "pattern": "(a+)+$"}}}
    [answered] = ask(call, crm, ToolCall("t1", "lookup", {"email": "a" * 60 + "!"}))
    assert answered["error"] == "This tool is not set up yet, so it was not used."
    assert crm.connections == 0


def test_a_call_has_a_budget_and_the_model_is_told_when_it_is_spent(call: CallSession, crm: Server) -> None:
    refused = [ToolCall(f"r{n}", "lookup", {}) for n in range(5)] + [ToolCall("r5", "unknown", {})]
    ask(call, crm, *refused)
    for start in (0, 6):
        ask(call, crm, *(ToolCall(f"t{n}", "lookup", ALEX) for n in range(start, start + 6)))
    assert len(crm.asked) == tool_runs.MOST_PER_CALL == 10
    [spent] = ask(call, crm, ToolCall("more", "lookup", ALEX))
    assert spent["error"] == tool_calls.BUDGET_SPENT
    [repeat] = ask(call, crm, ToolCall("t0", "lookup", ALEX))
    assert repeat["result"] == '{"plan":"pro"}'
    assert said(ask(call, crm, ToolCall("bye", "end_call"))[0]).endswith("Say goodbye now.")


def test_the_budget_is_the_same_for_two_processes_at_once(call: CallSession, crm: Server) -> None:
    at_once(
        [
            partial(ask, CallSession.objects.get(pk=call.pk), crm, *(ToolCall(f"{p}-{n}", "lookup", ALEX) for n in range(5)))
            for p in range(4)
        ]
    )
    assert len(crm.asked) == tool_runs.MOST_PER_CALL


def test_one_tool_call_asked_from_eight_threads_at_once_has_one_effect_and_one_answer(call: CallSession, crm: Server) -> None:
    answers = at_once([partial(ask, CallSession.objects.get(pk=call.pk), crm, ToolCall("t1", "lookup", ALEX)) for _ in range(8)])
    assert len(crm.asked) == ToolRun.objects.count() == 1
    assert {json.dumps(answer) for answer in answers} == {json.dumps(answers[0])}
    assert call.events.filter(kind="tool-called").count() == call.events.filter(kind="tool-answered").count() == 1


def test_a_tool_after_the_end_of_the_call_has_no_effect(call: CallSession, crm: Server) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    asked_late = [ToolCall("t1", "lookup", ALEX), ToolCall("t2", "end_call"), ToolCall("t3", "transfer_to_human", {"target": "tier2"})]
    assert [said(answer) for answer in ask(call, crm, *asked_late)] == [tool_calls.CALL_OVER] * 3
    assert crm.connections == 0
    assert not OutboxCommand.objects.exists()
    assert CallSession.objects.get().rung == Rung.AI


@pytest.mark.parametrize("status", [Status.TRANSFERRING, Status.VOICEMAIL])
def test_an_agent_whose_caller_is_with_somebody_else_has_no_tools(call: CallSession, crm: Server, status: Status) -> None:
    CallSession.objects.update(status=status)
    answers = ask(call, crm, ToolCall("t1", "lookup", ALEX), ToolCall("t2", "end_call"))
    assert [said(answer) for answer in answers] == [tool_calls.CALL_OVER] * 2
    assert crm.connections == 0


def test_another_calls_id_tells_nothing_and_does_nothing(call: CallSession, crm: Server) -> None:
    ask(call, crm, ToolCall("t1", "lookup", ALEX))
    other = a_call("CA" + "b" * 32)
    [answered] = ask(other, crm, ToolCall("t1", "lookup", {"email": "other@acme.test"}))
    assert answered["error"] == tool_calls.NOT_YOURS
    assert len(crm.asked) == 1
    assert not other.events.filter(kind__startswith="tool-").exists()


# -- in time, and in order -------------------------------------------------------------------------------------------------


def test_every_id_is_answered_in_order_and_of_seventeen_one_is_told_to_wait(call: CallSession, crm: Server) -> None:
    answers = ask(call, crm, *(ToolCall(f"t{n}", "unknown") for n in range(17)))
    assert [answer["toolCallId"] for answer in answers] == [f"t{n}" for n in range(17)]
    assert [said(answer) for answer in answers] == [tool_calls.NO_SUCH_TOOL] * 16 + [tool_calls.TOO_MANY_AT_ONCE]
    assert ToolRun.objects.count() == 16


def test_tools_that_never_answer_share_one_deadline(call: CallSession, crm: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "DEADLINE_S", 1.0)
    crm.acts = [hang]
    started = time.monotonic()
    answers = ask(call, crm, *(ToolCall(f"t{n}", "lookup", ALEX) for n in range(4)))
    assert time.monotonic() - started < 3
    assert [answer["error"] for answer in answers] == [tool_calls.TOO_LATE] * 4
    assert {json.dumps(run.sent, sort_keys=True) for run in ToolRun.objects.all()} == {
        json.dumps({"bytes": len(crm.asked[0].body), "signed": False, "to": "127.0.0.1"}, sort_keys=True)
    }


def test_one_tool_that_breaks_us_does_not_take_the_others_answers(call: CallSession, crm: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = tool_runs.begin_tool

    def broken(*, tool_call_id: str, **entered: Any) -> tuple[ToolRun, bool]:
        if tool_call_id == "t1":
            raise DatabaseError("gone")
        return begin(tool_call_id=tool_call_id, **entered)

    monkeypatch.setattr(tool_runs, "begin_tool", broken)
    answers = ask(call, crm, *(ToolCall(f"t{n}", "lookup", ALEX) for n in range(3)))
    assert [said(answer) for answer in answers] == ['{"plan":"pro"}', tool_calls.NOT_NOW, '{"plan":"pro"}']


def test_an_answer_that_cannot_be_written_down_is_told_all_the_same(
    call: CallSession, crm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> bool:
        raise DatabaseError("gone")

    monkeypatch.setattr(tool_runs, "finish_tool", away)
    assert ask(call, crm, ToolCall("t1", "lookup", ALEX))[0]["result"] == '{"plan":"pro"}'


def test_a_model_that_never_stops_asking_is_not_written_down_for_ever(
    call: CallSession, crm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_runs, "MOST_ASKED", 3)
    answers = [said(ask(call, crm, ToolCall(f"t{n}", "unknown"))[0]) for n in range(5)]
    assert answers == [tool_calls.NO_SUCH_TOOL] * 3 + [tool_calls.BUDGET_SPENT] * 2
    assert said(ask(call, crm, ToolCall("t0", "unknown"))[0]) == tool_calls.NO_SUCH_TOOL
    assert ToolRun.objects.count() == 3


@pytest.mark.parametrize("text", ["two\nlines", "bell\x07 escape\x1b[31m", "u2028\u2028here", " \r\n ", "x" * 9000])
def test_every_answer_is_one_line(call: CallSession, crm: Server, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for problem in (False, True):
        told = ToolAnswer(text="" if problem else text, problem=text if problem else "")
        monkeypatch.setattr(tools, "run", lambda *_, told=told, **__: told)
        [answered] = ask(call, crm, ToolCall(f"t{problem}", "lookup", ALEX))
        assert len(said(answered).splitlines()) <= 1
        assert said(answered).isprintable()
        assert len(said(answered)) <= tools.MAX_TEXT_CHARS
        [repeated] = ask(call, crm, ToolCall(f"t{problem}", "lookup", ALEX))
        assert repeated == answered


# -- what is written down --------------------------------------------------------------------------------------------------


def test_what_was_asked_sent_and_returned_is_in_the_log_without_secrets(call: CallSession, crm: Server) -> None:
    crm.acts = [reply(200, {"plan": "pro", "reset_token": "canary-token", "card": "4111 1111 1111 1111"})]
    [answered] = ask(call, crm, ToolCall("t1", "lookup", ALEX | {"password": "canary-password", "pin": "1234"}))
    assert "canary-token" in answered["result"]  # the model may need it; nobody else does
    assert crm.asked[0].json["password"] == "canary-password"
    run, masked = ToolRun.objects.get(), '{"plan":"pro","reset_token":"•••","card":"[card]"}'
    sent = {"to": "127.0.0.1", "bytes": len(crm.asked[0].body), "signed": False, "status": 200}
    asked_for = ALEX | {"password": "•••", "pin": "•••"}
    assert (run.arguments, run.sent, run.result) == (asked_for, sent, masked)
    called, answered_event = call.events.filter(kind__startswith="tool-")
    assert (called.kind, called.source, called.detail) == ("tool-called", "vapi", {"name": "lookup", "arguments": asked_for})
    assert (answered_event.kind, answered_event.source) == ("tool-answered", "tool")
    ms = answered_event.detail.pop("ms")
    assert 0 <= ms < 5000
    assert answered_event.detail == {"name": "lookup", "result": masked, "sent": sent}


def test_a_problem_is_in_the_log_too(call: CallSession, crm: Server) -> None:
    crm.acts = [reply(404, {"error": "no such account, token=canary"})]
    [answered] = ask(call, crm, ToolCall("t1", "lookup", ALEX))
    assert answered["error"] == "The tool refused this (404). no such account, token=canary"
    detail = call.events.get(kind="tool-answered").detail
    assert (detail["problem"], detail["sent"]["status"]) == ("The tool refused this (404). no such account, token=•••", 404)
    assert "result" not in detail


def test_arguments_too_long_to_keep_are_counted(call: CallSession, crm: Server) -> None:
    ask(call, crm, ToolCall("t1", "lookup", ALEX | {"note": "x" * 20_000}))
    assert ToolRun.objects.get().arguments == {"left out": f"{len(json.dumps(ALEX | {'note': 'x' * 20_000}, separators=(',', ':')))} bytes"}


# -- a person, or goodbye --------------------------------------------------------------------------------------------------


def transfer(call: CallSession, id: str = "t1", **arguments: Any) -> ToolAnswer:
    answered = builtin_tools.run(call=call, name="transfer_to_human", arguments=arguments, at=timezone.now())
    assert answered is not None
    return answered


def test_a_person_is_asked_for_once_per_stream_and_the_first_wish_stands(call: CallSession, published: QuietPublisher) -> None:
    assert call.line is not None
    call.line.handoff.create(slug="boss", name="Boss", number="+15550100112", order=2)
    assert transfer(call, target="boss", reason="r", summary="s").text.startswith("Boss takes over")
    assert transfer(call, target="tier2", reason="r", summary="s").text.startswith("Boss takes over")
    assert OutboxCommand.objects.get().detail["target"] == "boss"
    assert call.events.filter(kind="handover-requested").count() == 1
    CallSession.objects.update(epoch=1)
    call.refresh_from_db()
    assert transfer(call, target="tier2").text.startswith("Tier2 takes over")
    assert OutboxCommand.objects.count() == 2


def test_with_nobody_to_ring_the_caller_is_led_to_the_voicemail(call: CallSession) -> None:
    assert call.line is not None
    call.line.handoff.clear()
    answered = transfer(call, target="tier2", reason="locked out")
    assert (answered.problem, "leave a message" in answered.text) == ("", True)
    assert OutboxCommand.objects.get().detail["target"] == ""
    assert CallSession.objects.get().rung == Rung.AI  # the ladder says how low it went, when it went there


def test_with_nobody_to_ring_and_no_voicemail_the_model_is_told(call: CallSession) -> None:
    assert call.line is not None
    call.line.handoff.clear()
    call.line.voicemail = False
    answered = transfer(call)
    assert answered.problem.startswith("Nobody can take over")
    assert not OutboxCommand.objects.exists()


def test_an_agent_that_may_not_transfer_or_hang_up_does_neither(call: CallSession) -> None:
    assert call.version is not None
    call.version.may_transfer = call.version.may_end_call = False
    for name in ("transfer_to_human", "end_call"):
        answered = builtin_tools.run(call=call, name=name, arguments={}, at=timezone.now())
        assert answered is not None
        assert answered.problem
    assert not OutboxCommand.objects.exists()


def test_what_the_person_is_told_holds_no_secret_and_is_short(call: CallSession) -> None:
    transfer(call, reason="card 4111 1111 1111 1111\n" * 50, summary="password: canary\x1b " + "x" * 5000)
    detail = OutboxCommand.objects.get().detail
    assert "4111" not in detail["reason"]
    assert "canary" not in detail["summary"]
    assert detail["summary"].isprintable()
    assert (len(detail["reason"]) <= 200, len(detail["summary"]) <= 600) == (True, True)


def test_a_call_that_ends_at_the_same_moment_gets_its_command_before_or_not_at_all(call: CallSession) -> None:
    end = partial(services.end_call, call_sid=CALL_SID, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    hang_up = partial(builtin_tools.run, call=call, name="end_call", arguments={}, at=timezone.now())
    jobs: list[Callable[[], Any]] = [hang_up, hang_up, hang_up, end]
    granted = [outcome for outcome in at_once(jobs)[:3] if outcome is not None]
    assert OutboxCommand.objects.count() == bool(granted)
