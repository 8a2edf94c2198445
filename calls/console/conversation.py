"""What was said and done on a call, piece by piece: lines, tool calls and events, each as an `Item`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from calls.console.shown import Item, length, offset, origin, span, stamp
from calls.models import CallEvent, CallSession, Heard, ToolRun, TranscriptLine, VapiSession
from calls.printed import words

MEASURED = ("tts-buffer-flushed", "voicemail-recorded", "callback-promised")  # worded with numbers alone
INTERRUPTION = re.compile(r"\d{1,5}\.\d{1,5}", re.ASCII)  # the name of one: its stream and its number there
HEARD = {Heard.PART: "cut off", Heard.NONE: "not heard"}


def event(happened: CallEvent, *, told: bool) -> Item:
    """One milestone, worded as the printed log words it. Partial speech is repeated in a slot of its own.

    Where what was said is not `told`, a milestone has its name and at most numbers: anything else may be words.
    """
    kind, detail = happened.kind, happened.detail if isinstance(happened.detail, dict) else {}
    partial = kind == "transcript-partial" and told
    return Item(
        id=f"event-{happened.seq}",
        order=(happened.seq,),
        data={"source": happened.source, "kind": kind, "ms": str(happened.ms), "role": str(detail.get("role", ""))[:10]},
        slots={
            "at": stamp(happened.at),
            "offset": offset(happened.ms),
            "source": happened.get_source_display(),
            "words": (words(kind, detail) if told or kind in MEASURED else kind) + _of_which(detail.get("interruption")),
            "partial": str(detail.get("text", "")) if partial else "",
        },
    )


def _of_which(interruption: Any) -> str:
    """All that is told of one interruption can be read together."""
    return f" · interruption {interruption}" if isinstance(interruption, str) and INTERRUPTION.fullmatch(interruption) else ""


def heard_and_not(line: TranscriptLine) -> tuple[str, str]:
    """What the caller heard of a line, and the tail that was cut off.

    `heard_text` is normally how the line begins. Where it is not (the vendor worded it otherwise), as many words count as heard.
    """
    if line.heard == Heard.FULL:
        return line.said, ""
    if line.heard == Heard.NONE:
        return "", line.said
    if line.said.startswith(line.heard_text):
        return line.heard_text.rstrip(), line.said[len(line.heard_text) :].lstrip()
    said, count = line.said.split(), len(line.heard_text.split())
    return " ".join(said[:count]), " ".join(said[count:])


def spoken(line: TranscriptLine, call: CallSession) -> Item:
    """One line of the transcript."""
    heard, unheard = heard_and_not(line)
    ms = max(round((line.at - origin(call)).total_seconds() * 1000), 0)
    return Item(
        id=f"line-{line.pk}",
        order=(line.n, line.vendor_ms, 0, line.pk),
        data={"role": line.role, "heard": line.heard, "ms": str(ms)},
        slots={
            "who": line.get_role_display(),
            "at": stamp(line.at),
            "offset": length(ms),
            "heard": heard,
            "unheard": unheard,
            "mark": HEARD.get(Heard(line.heard), "from the report" if line.from_report else ""),
        },
    )


def tool(run: ToolRun, call: CallSession, sessions: Sequence[VapiSession]) -> Item:
    """A tool call, to stand in the transcript where it happened: after what was said before it."""
    ms = max(round((run.started_at - origin(call)).total_seconds() * 1000), 0)
    took = round((run.ended_at - run.started_at).total_seconds() * 1000) if run.ended_at else None
    n = max((session.n for session in sessions if session.asked_at <= run.started_at), default=0)
    return Item(
        id=f"tool-{run.pk}",
        order=(n, round(run.started_at.timestamp() * 1000), 1, run.pk),
        data={"role": "tool", "heard": "full", "ms": str(ms), "tone": "bad" if run.problem else "wait" if took is None else "good"},
        slots={
            "at": stamp(run.started_at),
            "offset": length(ms),
            "name": run.name,
            "arguments": by_name(run.arguments),
            "sent": sent_words(run.sent),
            "result": as_text(run.result),
            "problem": run.problem,
            "waiting": "" if run.problem or took is not None else "no answer came" if call.is_over else "running …",
            "took": span(took) if took is not None else "",
        },
    )


def by_name(arguments: Any) -> str:
    """What a tool was asked, a line for each argument."""
    if not isinstance(arguments, dict):
        return as_text(arguments)
    return "\n".join(f"{key}: {as_text(value)}" for key, value in arguments.items())


def as_text(value: Any) -> str:
    """A stored JSON value as one would write it: texts as they are, all else as JSON. Half characters become question marks."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def sent_words(sent: Any) -> str:
    """What left our house for a tool: 'to crm.example, signed, 48 bytes; it answered 200'. Nothing for a tool of our own."""
    if not isinstance(sent, dict) or not sent.get("to"):
        return ""
    signed = "signed" if sent.get("signed") else "not signed"
    size = f", {sent['bytes']:,} bytes" if isinstance(sent.get("bytes"), int) else ""
    status = f"; it answered {sent['status']}" if sent.get("status") else ""
    return as_text(f"to {sent['to']}, {signed}{size}{status}")
