"""Numbers told over several finals: when the rest of one comes, what was stored of it before is rewritten.

A part is no card number yet, and a speaker's pause ends a final. So whenever a line comes that may be a part, the lines
around it are looked at together, in whatever order they came, and the row, its event and its stored message are made as if
all had been known at once. Their keys stay: the same final told again is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from django.db.models import Q

from calls.discretion import rules_of
from calls.models import CallEvent, InboxMessage, TranscriptLine
from calls.redaction import LOOK_BACK_MS, Said, goes_on, redact_talk
from calls.vapi_kinds import TRANSCRIPT

REACH_MS = 3 * LOOK_BACK_MS  # before and after a new line
FIRST_TOLD = "line"  # in the `call` of a rewritten message: what its line's words were, as the line's key has it


def settle(new: Sequence[TranscriptLine]) -> None:
    """Leave out what these stored lines tell together with those around them. Asks nothing when none of them may be a part."""
    parts = [row for row in new if goes_on(row.said, rules_of(row.call.version_id))]
    if not parts:
        return
    near = (Q(call=row.call, vendor_ms__range=(row.vendor_ms - REACH_MS, row.vendor_ms + REACH_MS)) for row in parts)
    told = TranscriptLine.everything.filter(reduce(or_, near), from_report=False).exclude(vapi_call_id="")
    around: dict[int, list[TranscriptLine]] = {}
    for row in told.select_related("call").only(
        *("n", "vapi_call_id", "role", "said", "heard_text", "vendor_ms", "text_hash", "at", "call__version_id")
    ):
        around.setdefault(row.call_id, []).append(row)
    for rows in around.values():
        texts = redact_talk([Said(row.role, row.vendor_ms, row.said) for row in rows], rules_of(rows[0].call.version_id))
        changed = [(row, text) for row, text in zip(rows, texts, strict=True) if row.said != text]
        if changed:
            _rewrite(changed)


def _rewrite(changed: Sequence[tuple[TranscriptLine, str]]) -> None:
    lines = {(row.at, row.role, row.said): (row, text) for row, text in changed}
    moments = {row.at for row, _ in changed}
    events = CallEvent.objects.filter(call=changed[0][0].call_id, kind="transcript-final", at__in=moments)
    for event in events:
        known = lines.get((event.at, event.detail.get("role"), event.detail.get("text")))
        if known:
            event.detail["text"] = known[1]
            event.save(update_fields=["detail"])
    bodies = InboxMessage.objects.filter(
        vapi_call_id__in={row.vapi_call_id for row, _ in changed}, kind=TRANSCRIPT, received_at__in=moments
    )
    for message in bodies:
        said = str(message.body.get("transcript", "")).strip()
        known = next((line for (at, _, was), line in lines.items() if (at, was) == (message.received_at, said)), None)
        if known:
            message.body |= {"transcript": known[1], "call": {**message.body.get("call", {}), FIRST_TOLD: known[0].text_hash}}
            message.save(update_fields=["body"])
    for row, text in changed:
        heard_text = _heard(row.heard_text, row.said, text)
        TranscriptLine.everything.filter(pk=row.pk).update(said=text, heard_text=heard_text)


def _heard(heard_text: str, said: str, text: str) -> str:
    """What was heard of a rewritten line: its words as far as they are the same, and the mark if more was heard."""
    if not heard_text:
        return ""
    old, new, heard = said.split(), text.split(), len(heard_text.split())
    same = next((place for place, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new)))
    return " ".join(new[: heard if heard <= same else max(same + 1, heard - len(old) + len(new))])
