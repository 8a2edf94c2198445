"""The log of a call's tools: what the model asked, what left the house, what came back, and how many a call may have.

A tool call's id is unique, so it is run once and its first answer stays its answer, whichever process is asked. Whether it
may do anything is one conditional UPDATE of the call: the agent is still on it, and its budget is not used up. Secrets and
card numbers are kept nowhere, nor are the digits with which an agent asks that listens to the keypad; a repeat is therefore
answered without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from django.db import IntegrityError, transaction
from django.db.models import F

from calls import unsaid
from calls.discretion import rules_of
from calls.history import NewEvent, record_events
from calls.masking import masked, masked_text, without_digits
from calls.models import CallSession, CallSessionQuerySet, Source, Status, ToolRun
from calls.redaction import Rules, redact, redact_body

MOST_PER_CALL = 10  # requests that leave the house; what is built in does not count
MOST_ASKED = 200  # of any kind; a model that asks more is not written down any more
KEPT_BYTES = 8 * 1024  # of the arguments
LONGEST_PROBLEM = 200  # characters
WITH_AGENT = (Status.RECEIVED, Status.WAITING, Status.CONNECTING, Status.STREAMING, Status.RECOVERING)


def begin_tool(*, call: CallSession, tool_call_id: str, name: str, arguments: Any, at: datetime) -> tuple[ToolRun, bool]:
    """Enter a tool call of the model. The flag is True for the one who is to run it; all others wait for, or read, its result."""
    rules = rules_of(call.version_id)
    listens = call.version is not None and call.version.keypad
    told = without_digits(arguments) if listens else arguments
    kept, name = {} if unsaid.among({call.pk}) else _kept(told, rules), redact(name[:64], rules)
    try:
        with transaction.atomic():
            run = ToolRun.objects.create(call=call, tool_call_id=tool_call_id, name=name, arguments=kept, started_at=at)
            record_events(call_sid=call.call_sid, events=[NewEvent("tool-called", Source.VAPI, at, {"name": name, "arguments": kept})])
    except IntegrityError:
        return ToolRun.objects.get(tool_call_id=tool_call_id), False
    return run, True


def agent_is_on(*, call: CallSession) -> bool:
    """True while the caller talks with the agent. Inside a transaction nobody ends the call before its commit."""
    return _with_agent(call).update(tools_sent=F("tools_sent")) == 1


def grant(*, call: CallSession) -> bool:
    """Use up one of the call's MOST_PER_CALL requests. False: they are used up, or the agent is not on the call any more."""
    return _with_agent(call).filter(tools_sent__lt=MOST_PER_CALL).update(tools_sent=F("tools_sent") + 1) == 1


def asked_enough(*, call: CallSession) -> bool:
    return ToolRun.objects.filter(call=call).count() >= MOST_ASKED


def finish_tool(*, tool_call_id: str, result: str, problem: str, at: datetime, sent: Mapping[str, Any] | None = None) -> bool:
    """Keep a tool's answer. True for the first; the answer never changes after that. `sent` as in `agents.tools.ToolAnswer`."""
    with transaction.atomic():
        run = ToolRun.objects.select_related("call").filter(tool_call_id=tool_call_id).first()
        if run is None:
            return False
        rules = rules_of(run.call.version_id)
        run.result, run.problem = redact(masked_text(result), rules), redact(masked_text(problem), rules)[:LONGEST_PROBLEM]
        run.sent = dict(sent or {})
        if unsaid.among({run.call_id}):
            run.result, run.problem, run.sent = "", "It failed; what it said is not kept." if problem else "", {}
        unfinished = ToolRun.objects.filter(pk=run.pk, ended_at=None)
        if unfinished.update(result=run.result, problem=run.problem, sent=run.sent, ended_at=at) == 0:
            return False
        ms = max(0, int((at - run.started_at).total_seconds() * 1000))
        told = {"problem": run.problem} if run.problem else {"result": run.result}
        detail = {"name": run.name, "ms": ms, **told, "sent": run.sent}
        record_events(call_sid=run.call.call_sid, events=[NewEvent("tool-answered", Source.TOOL, at, detail)])
    return True


def _with_agent(call: CallSession) -> CallSessionQuerySet:
    return CallSession.objects.live().filter(pk=call.pk, status__in=WITH_AGENT)


def _kept(arguments: Any, rules: Rules) -> Any:
    """Arguments as they are stored: masked, or only counted when there are too many."""
    size = len(orjson.dumps(arguments))
    return redact_body(masked(arguments), rules) if size <= KEPT_BYTES else {"left out": f"{size} bytes"}
