"""The races of a call, made to happen: two processes on one database do the same, or what does not go together, at one moment.

Those that are as wide as they come, and on PostgreSQL too, are in `test_in_full`; R8 under kills is in `test_workers_killed`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Count
from django.utils import timezone
from pytest_django.fixtures import Settings

from calls import inbox, services
from calls.lease_rows import ProcessLease
from calls.models import CallEvent, CallSession, EndReason, InboxMessage, Status, TranscriptLine, VapiSession, VapiState
from calls.queue_rows import AgentPlace
from tests.builders import LINE, a_call, a_line, call_sid, session_of
from tests.races.many import a_process_with_calls
from tests.races.pair import Pair

TIMES = 40
SAID = (
    *("Welcome to our telephone desk", "My parcel never arrived", "When was it ordered", "Three weeks ago, on Tuesday"),
    *("Which city should receive it", "Aberdeen, near the harbour", "Somebody signed for everything", "That was certainly not me"),
    *("Then we shall send another", "Wonderful, goodbye"),
)


def of_each(calls: list[CallSession], **more: Any) -> list[dict[str, Any]]:
    return [{"sid": call.call_sid, **more} for call in calls]


def test_a_job_that_fails_in_one_process_is_told_and_neither_is_left_waiting_for_the_other(pair: Pair) -> None:
    calls = [a_call() for _ in range(3)]
    for fails_first in (True, False):
        jobs = [("admit", of_each(calls, stream="MZ1", epoch="none")), ("end", of_each(calls, reason="caller_hung_up"))]
        (one, its), (other, others) = jobs if fails_first else jobs[::-1]
        with pytest.raises(AssertionError, match="ValueError"):
            pair.at_once(one, its, other, others)
    assert pair.at_once("end", of_each(calls, reason="caller_hung_up")) == [(False, False)] * 3


def ended_once(calls: list[CallSession]) -> None:
    for call in calls:
        call.refresh_from_db()
        assert call.is_over
        assert call.events.filter(kind="call-ended").count() == 1


def test_r2_and_r3_webhooks_of_one_call_leave_the_same_rows_whoever_comes_first(pair: Pair) -> None:
    calls = [a_call() for _ in range(8)]
    for call in calls:
        VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    each = [{"bodies": webhooks(call), "seed": number} for number, call in enumerate(calls)]
    others = [{**one, "seed": 1000 + number} for number, one in enumerate(each)]
    answers = pair.at_once("vapi", each, "vapi", others, each_time=False)
    assert all(set(first) | set(second) == {200} for first, second in answers)
    assert not InboxMessage.objects.filter(processed_at=None).exists()
    stands = {how_it_stands(call) for call in calls}
    assert len(stands) == 1, "the order of news made a difference"
    lines, ended = json.loads(stands.pop())
    assert [text for _, text in lines] == list(SAID)
    assert ended == ["customer-ended-call", VapiState.ENDED, True]


def test_ids_that_vapi_mixed_up_are_put_right_once_by_two_processes_that_are_told_at_one_moment(pair: Pair) -> None:
    """Each call was told the id of the one before it; each half of its news comes to another process."""
    calls = [a_call() for _ in range(8)]
    told = ["v-nobody", *(f"v-{call.call_sid}" for call in calls)]
    for call, wrong in zip(calls, told, strict=False):
        claimed = {"state": VapiState.LIVE, "claim": uuid.uuid4(), "live_at": timezone.now()}
        VapiSession.objects.filter(call=call).update(vapi_call_id=wrong, **claimed)
    bodies = [webhooks(call, claim=str(session_of(call).claim)) for call in calls]
    halves = [[{"bodies": each[half::2], "seed": number} for number, each in enumerate(bodies)] for half in (0, 1)]
    answers = pair.at_once("vapi", halves[0], "vapi", halves[1], each_time=False)
    assert all(set(first) | set(second) == {200} for first, second in answers)
    for pk in inbox.inbox_to_do(now=timezone.now() + timedelta(minutes=1)):  # the schedule's
        inbox.reprocess(pk=pk, at=timezone.now())
    assert [session_of(call).vapi_call_id for call in calls] == [f"v-{call.call_sid}" for call in calls]
    [stands] = {how_it_stands(call) for call in calls}
    lines, ended = json.loads(stands)
    assert [text for _, text in lines] == list(SAID)
    assert ended == ["customer-ended-call", VapiState.ENDED, True]


def webhooks(call: CallSession, *, is_named: bool = True, turns: int = 0, claim: str = "") -> list[str]:
    """What Vapi tells of a call of ten lines; `turns` of them are in its report too."""
    shown = {"assistantOverrides": {"metadata": {"claim": claim}}} if claim else {}
    vapi_call = {"id": f"v-{call.call_sid}", **shown} | ({"name": f"{call.call_sid}.0"} if is_named else {})
    at = 1_790_000_000_000
    finals: list[dict[str, Any]] = [
        {
            "type": "transcript",
            "transcriptType": "final",
            "role": "user" if n % 2 else "assistant",
            "transcript": SAID[n],
            "timestamp": at + 3000 * n,
        }
        for n in range(10)
    ]
    partials = [{**final, "transcriptType": "partial", "transcript": "the"} for final in finals[:4]]
    over = {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call", "timestamp": at + 40_000}
    said = [
        {
            "role": "user" if n % 2 else "bot",
            "message": SAID[n],
            "time": at + 3000 * n,
            "duration": 900,
            "secondsFromStart": 3.0 * n,
        }
        for n in range(turns)
    ]
    artifact = {"messages": said} if said else {}
    report = {
        "type": "end-of-call-report",
        "endedReason": "customer-ended-call",
        "cost": 0.1,
        "timestamp": at + 50_000,
        "artifact": artifact,
    }
    return [json.dumps({"message": {**message, "call": vapi_call}}) for message in (*finals, *partials, over, report)]


def how_it_stands(call: CallSession) -> str:
    session = session_of(call)
    lines = TranscriptLine.objects.filter(call=call).exclude(vapi_call_id="").order_by("vendor_ms").values_list("role", "said")
    return json.dumps([list(map(list, lines)), [session.ended_reason, session.state, session.report_at is not None]])


@pytest.mark.parametrize("is_named", [True, False], ids=["by our name", "by an id we do not know yet"])
def test_r4_what_vapi_tells_of_an_agent_before_it_has_answered_us_is_not_lost(pair: Pair, settings: Settings, is_named: bool) -> None:
    settings.MAX_CALLS = 2 * TIMES
    calls = [a_call() for _ in range(2 * TIMES)]
    starts = [{"pk": session_of(call).pk, "vapi_call_id": f"v-{call.call_sid}"} for call in calls]
    tells = [
        {
            "bodies": [body for body in webhooks(call, is_named=is_named) if SAID[0] in body or "status-update" in body],
            "seed": number,
        }
        | {"after_s": 0.0004 * (number % TIMES)}
        for number, call in enumerate(calls)
    ]
    done = pair.at_once("start_as", starts, "vapi", tells)
    assert [statuses for _, statuses in done] == [[200, 200]] * len(calls)
    for pk in inbox.inbox_to_do(now=timezone.now() + timedelta(minutes=1)):  # the schedule's
        inbox.reprocess(pk=pk, at=timezone.now())
    assert not InboxMessage.objects.filter(processed_at=None).exists()
    for call in calls:
        lines, (reason, state, _) = json.loads(how_it_stands(call))
        assert ([text for _, text in lines], state) == ([SAID[0]], VapiState.ENDED)
        assert reason in ("customer-ended-call", "")
    assert CallSession.objects.count() == len(calls), "a ghost came with the early news"


def test_r5_a_last_line_that_is_later_than_the_report_is_added_once(pair: Pair) -> None:
    calls = [a_call() for _ in range(TIMES)]
    for call in calls:
        VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    told = [webhooks(call, turns=9) for call in calls]
    reports = [{"bodies": [body for body in each if "end-of-call-report" in body], "seed": 0} for each in told]
    finals = [{"bodies": [body for body in each if '"final"' in body], "seed": number} for number, each in enumerate(told)]
    for place, report in enumerate(reports):
        report["after_s"] = 0.008 * (place % 10)  # before, between and after the ten lines
    done = pair.at_once("vapi", reports, "vapi", finals)
    assert all(set(first) | set(second) == {200} for first, second in done)
    for call in calls:
        lines, (_, _, is_reported) = json.loads(how_it_stands(call))
        assert ([text for _, text in lines], is_reported) == (list(SAID), True)


def test_r8_a_task_that_runs_twice_creates_one_agent(pair: Pair) -> None:
    sessions = [session_of(a_call()) for _ in range(TIMES)]
    tried = pair.at_once("start", [{"pk": session.pk} for session in sessions])
    assert [first["created"] + second["created"] for first, second in tried] == [1] * TIMES
    assert set(VapiSession.objects.values_list("state", flat=True)) == {VapiState.LIVE}


def test_r8_of_a_worker_and_the_stream_that_takes_its_session_over_one_has_the_agent(pair: Pair) -> None:
    """Whoever answers first: both asked Vapi, and the agent of the other one is ended."""
    sessions = [session_of(a_call()) for _ in range(TIMES)]
    takes = [{"pk": session.pk, "after_s": 0.0004 * number} for number, session in enumerate(sessions)]
    tried = pair.at_once("start", [{"pk": session.pk} for session in sessions], "take_session", takes)
    assert [worker["won"] + stream["won"] for worker, stream in tried] == [1] * TIMES
    assert all(one["created"] - one["ended"] == one["won"] for both in tried for one in both)
    assert any(worker["created"] and stream["created"] for worker, stream in tried), "none was ever taken over while Vapi was asked"
    for session, (_, stream) in zip(sessions, tried, strict=True):
        session.refresh_from_db()
        assert (session.vapi_call_id == f"taken-over-{session.pk}") is bool(stream["won"])


def test_r9_a_stream_that_is_there_before_its_agent_gets_one_whoever_makes_it(pair: Pair) -> None:
    calls = [a_call() for _ in range(TIMES)]
    sessions = [session_of(call) for call in calls]
    gaps = [0.001 * (number - TIMES // 2) for number in range(TIMES)]  # from the worker well before the stream to well after it
    streams = [{"sid": call.call_sid, "pk": of.pk, "after_s": max(0.0, -gap)} for call, of, gap in zip(calls, sessions, gaps, strict=True)]
    starts = [{"pk": session.pk, "after_s": max(0.0, gap)} for session, gap in zip(sessions, gaps, strict=True)]
    done = pair.at_once("start", starts, "stream_first", streams)
    assert [stream["let_in"] for _, stream in done] == [True] * TIMES
    assert [worker["created"] + stream["created"] for worker, stream in done] == [1] * TIMES
    assert {bool(worker["won"]) for worker, _ in done} == {True, False}, "one of them always came first: there was no race"
    assert set(VapiSession.objects.values_list("state", flat=True)) == {VapiState.LIVE}
    assert set(CallSession.objects.values_list("status", flat=True)) == {Status.STREAMING}


def test_r10_of_two_streams_with_one_token_one_is_let_in(pair: Pair) -> None:
    calls = [a_call() for _ in range(TIMES)]
    let_in = pair.at_once("admit", of_each(calls, stream="MZ1"), "admit", of_each(calls, stream="MZ2"))
    assert [sorted(both) for both in let_in] == [[False, True]] * TIMES
    for call, (first, _) in zip(calls, let_in, strict=True):
        call.refresh_from_db()
        assert call.stream_sid == ("MZ1" if first else "MZ2")


def test_r11_two_who_lead_a_caller_back_to_the_agent_do_it_once(pair: Pair) -> None:
    calls = [a_call(status=Status.STREAMING, stream_epoch=0) for _ in range(TIMES)]
    assert set(pair.at_once("resume", of_each(calls, epoch=0))) == {("Resume", "Resume")}
    for call in calls:
        call.refresh_from_db()
        assert (call.epoch, list(call.vapi_sessions.values_list("n", flat=True))) == (1, [0, 1])


def test_r12_a_caller_who_leaves_while_the_agent_is_made_leaves_no_agent_behind(pair: Pair, settings: Settings) -> None:
    settings.MAX_CALLS = 10 * TIMES
    calls = [a_call() for _ in range(2 * TIMES)]
    starts = [{"pk": session_of(call).pk} for call in calls]
    leaves = [{"sid": call.call_sid, "after_s": 0.0006 * (number % TIMES)} for number, call in enumerate(calls)]
    done = pair.at_once("start", starts, "hang_up", leaves)
    for made, left in done:
        assert made["created"] == min(1, made["ended"] + left["ended"])  # said twice, an end is an end
    assert not VapiSession.objects.filter(ended_at=None).exists()
    assert sum(made["created"] for made, _ in done) > 0, "nobody was ever created in time to be left"
    ended_once(calls)


def test_r13_a_call_keeps_the_words_it_began_with_whatever_is_published_meanwhile(pair: Pair) -> None:
    line = a_line(number=LINE)
    slug = line.template.slug
    edits = [{"slug": slug, "prompt": f"These are the words of edition {number}."} for number in range(TIMES)]
    done = pair.at_once("edit", edits, "whole_call", [{"sid": call_sid()} for _ in range(TIMES)])
    for _, (prompt, *given) in done:
        assert len(given) == 3
        assert all(prompt in each for each in given)
    assert len({prompt for _, (prompt, *_) in done}) > 2, "hardly anything was published between the calls"


def test_r14_nothing_said_stays_of_somebody_who_is_erased_while_their_call_is_told_of(pair: Pair) -> None:
    numbers = [f"+1555010{number:04d}" for number in range(1000, 1000 + TIMES)]
    calls = [a_call(from_number=number, status=Status.STREAMING, stream_epoch=0) for number in numbers]
    for call in calls:
        VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    tells = [{"bodies": webhooks(call, turns=10), "seed": number} for number, call in enumerate(calls)]
    erases = [{"number": number, "after_s": 0.002 * (place % 20)} for place, number in enumerate(numbers)]
    done = pair.at_once("vapi", tells, "forget_person", erases)
    assert [(set(statuses), gone) for statuses, gone in done] == [({200}, 1)] * TIMES
    for call in calls:
        services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    left = {
        "lines": TranscriptLine.everything.filter(said__in=SAID).count(),
        "messages": sum(_tells(body) for body in InboxMessage.objects.values_list("body", flat=True)),
        "events": sum(_tells(detail) for detail in CallEvent.objects.values_list("detail", flat=True)),
        "numbers": CallSession.objects.filter(from_number__in=numbers).count(),
    }
    assert left == dict.fromkeys(left, 0)


def _tells(kept: Any) -> bool:
    return any(sentence in json.dumps(kept) for sentence in SAID)


def test_r15_the_end_of_a_call_stands_whatever_is_told_beside_and_after_it(pair: Pair) -> None:
    calls = [a_call() for _ in range(TIMES)]
    over = [{"path": "/webhook/twilio/status", "sid": call.call_sid, "status": "completed"} for call in calls]
    late = [{**one, "status": "in-progress"} for one in over]
    assert set(pair.at_once("twilio", over, "twilio", late)) == {(200, 200)}
    ended_once(calls)
    again = [a_call() for _ in range(TIMES)]
    pair.at_once("end", of_each(again, reason="caller_hung_up"), "admit", of_each(again, stream="MZ1"))
    ended_once(again)


def test_one_end_of_a_call_wins_and_its_reason_stays(pair: Pair) -> None:
    calls = [a_call() for _ in range(TIMES)]
    won = pair.at_once("end", of_each(calls, reason="agent_ended"), "end", of_each(calls, reason="max_duration"))
    assert [sorted(both) for both in won] == [[False, True]] * TIMES
    ended_once(calls)
    for call, (first, _) in zip(calls, won, strict=True):
        assert call.end_reason == (EndReason.AGENT_ENDED if first else EndReason.MAX_DURATION)


def test_r16_two_sweeps_at_once_have_the_effect_of_one(pair: Pair) -> None:
    long_ago = timezone.now() - timedelta(hours=2)
    calls = [a_call(last_seen_at=long_ago) for _ in range(TIMES)]
    ((first, second),) = pair.at_once("sweep", [{"ttl_s": 60}])
    assert Counter(first + second) == Counter(call.call_sid for call in calls)
    ended_once(calls)


def test_of_two_callers_at_once_one_gets_the_last_place_whichever_process_answers(pair: Pair) -> None:
    a_line(number=LINE)
    for _ in range(TIMES // 2):
        mine, other = ({"path": "/webhook/twilio", "sid": call_sid(), "most": 1} for _ in range(2))
        (got,) = pair.at_once("queue", [dict(mine)], "queue", [dict(other)])
        assert sorted(got) == ["agent", "waits"]
        waiting = other if got[0] == "agent" else mine
        (later,) = pair.at_once("end", [{"sid": str((mine if waiting is other else other)["sid"]), "reason": "agent_ended"}])
        assert sorted(later) == [False, True]
        waits = {**waiting, "path": "/webhook/twilio/wait/0/1"}
        (turns,) = pair.at_once("queue", [dict(waits)], "queue", [{**mine, "sid": call_sid()}])
        assert turns == ("agent", "waits"), "who came last was faster than who waited"
        CallSession.objects.filter(ended_at=None).update(status=Status.TRANSFERRING)


def test_a_place_is_taken_once_also_where_nothing_holds_the_database(pair: Pair) -> None:
    for _ in range(TIMES):
        both = [{"sid": a_call().call_sid, "most": 1} for _ in range(2)]
        AgentPlace.objects.update(call=None)
        (got,) = pair.at_once("take_place", [both[0]], "take_place", [both[1]])
        assert sorted(got) == [False, True]
        CallSession.objects.update(status=Status.TRANSFERRING)


def test_of_two_who_see_a_process_stand_still_one_has_its_calls(pair: Pair) -> None:
    silent = [a_process_with_calls(2) for _ in range(TIMES)]
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    has = pair.at_once(
        "look_after", [{"boot": boot, "by": mine} for boot in silent], "look_after", [{"boot": boot, "by": other} for boot in silent]
    )
    assert {frozenset(both) for both in has} == {frozenset((2, None))}
    for boot, (first, _) in zip(silent, has, strict=True):
        assert str(ProcessLease.objects.get(boot=boot).claimed_by) == (mine if first else other)
    assert CallSession.objects.filter(held_by=mine).count() == 2 * sum(first is not None for first, _ in has)


def test_a_process_that_gives_a_sign_while_it_is_taken_for_dead_keeps_its_calls_or_knows_that_it_lost_them(pair: Pair) -> None:
    silent = [a_process_with_calls(1) for _ in range(TIMES)]
    by = str(uuid.uuid4())
    done = pair.at_once("look_after", [{"boot": boot, "by": by} for boot in silent], "give_sign", [{"boot": boot} for boot in silent])
    assert set(done) <= {(1, False), (None, True)}
    held = dict(CallSession.objects.values_list("held_by").annotate(calls=Count("pk")))
    for boot, (took, _) in zip(silent, done, strict=True):
        assert held.get(uuid.UUID(boot), 0) == (0 if took else 1)
