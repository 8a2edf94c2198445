"""Was this call lost? Pure. Decided from what the vendors saw and from the export, never from our own log lines.

A call is lost if, while the caller's leg is up, more than 5 s pass with neither speech, prompt, ringing nor a turn for the caller; or
Twilio ends the leg for a reason that is not caller, agent, human or voicemail done or maximum duration; or a lower rung was used than
the highest healthy one; or no row with a terminal state and reason exists 120 s later; or a final line the vendor got 200 for is missing.
Four things more are held against the house: a conversation that did not go on where the ladder says it does (R0 to R2), a Vapi call
alive 60 s after the caller left, anything that was created twice, and a process that had time to leave in good order and did not.

Times are seconds since the caller dialled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

LONGEST_SILENCE_S = 5.0
TERMINAL = ("ended", "finalised")
ROW_WITHIN_S = 120.0
ORPHAN_AFTER_S = 60.0
ASKED_BEFORE_S = 3.0  # whoever asks for an agent waits so long at most: it was asked for no earlier before it was made ...
STORED_WITHIN_S = 10.0  # ... and its answer is stored by then, or whoever waited for it counts as dead
TOGETHER_S = 10.0  # two agents for one caller: longer than the old one may wait to be taken up again, and to say goodbye
RUNGS = ("R0", "R1", "R2", "R3", "R4", "R5")
KEEPS_CONTEXT = "R2"  # the lowest rung on which the agent knows the caller; a lower one that is healthy promises none
GREETED = 0.9  # of the greeting: who has heard so much was greeted
ANEW = 0.5  # a greeting that is heard from before here is no rest of one that was cut
KNOWN_AFTER_S = 1.0  # what was accepted so long before an agent was made, it must be told
GOOD_ENDINGS = frozenset({"caller", "agent", "human", "voicemail", "callback", "max-duration"})

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class AtVapi:
    """One call at Vapi. `connected_at`: its socket opened; `over_at`: None while it is open. `finals`: (role, words) it got 200 for.

    `told_at`: when it got the 200 for what the caller wants.
    """

    name: str
    made_at: float
    connected_at: float | None = None
    over_at: float | None = None
    finals: tuple[tuple[str, str], ...] = ()
    told_at: float | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """The caller heard it, or a piece of it: from and to which share of its length."""

    at: float
    begins: float = 0.0
    ends: float = 1.0


@dataclass(frozen=True, slots=True)
class Witnessed:
    """One phone call as others saw it.

    `audible`: when the caller heard something; `excused`: when ringing, a colleague, the tone or a turn of the caller's filled the time.
    `ended_by`: one of GOOD_ENDINGS, else what happened. `lowest`: the lowest rung that was seen. `rows`: the export's objects for it, as
    they were `looked_at`. `healthy`: the highest rung that the fault left standing. `forgot`: when an agent said it does not remember.
    `broken`: when a media stream ended without a close frame. `unkept`: what the strike saw that the house did not do.
    """

    up_at: float
    over_at: float
    ended_by: str
    healthy: str
    lowest: str
    looked_at: float
    audible: Sequence[Span] = ()
    excused: Sequence[Span] = ()
    vapi: Sequence[AtVapi] = ()
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    greetings: Sequence[Greeting] = ()
    forgot: Sequence[float] = ()
    answers_lost: Sequence[Span] = ()  # a fault might swallow the answer to a create then, so that nobody could know of that agent
    leads_there: bool = False  # the fault leads to the healthy rung, from every higher one
    in_good_order: bool = False  # its process has time to leave
    broken: Sequence[float] = ()
    unkept: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that is held against the house: which rule, when, and what was seen. No words of the call are in it."""

    rule: str
    at: float
    what: str


def judge(call: Witnessed) -> list[Verdict]:
    """Why the call counts as lost; empty when it was looked after."""
    rules = (_silence, _ending, _rung, _memory, _row, _lines, _orphans, _twice, _process)
    return [verdict for rule in rules for verdict in rule(call)]


def _silence(call: Witnessed) -> Iterator[Verdict]:
    """Each stretch in which the caller was left alone."""
    reached = call.up_at
    for begins, ends in [*sorted([*call.audible, *call.excused]), (call.over_at, call.over_at)]:
        if min(begins, call.over_at) - reached > LONGEST_SILENCE_S:
            yield Verdict("silence", reached, f"nothing for the caller during {min(begins, call.over_at) - reached:.1f} s")
        reached = max(reached, ends)


def _ending(call: Witnessed) -> Iterator[Verdict]:
    if call.ended_by not in GOOD_ENDINGS:
        yield Verdict("ending", call.over_at, f"the leg ended: {call.ended_by}")


def _rung(call: Witnessed) -> Iterator[Verdict]:
    told = [str(row.get("rung") or "R0") for row in call.rows]
    used = max((call.lowest, *told), key=_depth)
    if _depth(used) > _depth(call.healthy):
        yield Verdict("rung", call.over_at, f"{used} was used although {call.healthy} was healthy")
    if call.leads_there:
        for rung in {call.lowest, *told}:
            if _depth(rung) < _depth(call.healthy):
                yield Verdict("rung", call.over_at, f"{rung} was used although the fault leads to {call.healthy}")


def _memory(call: Witnessed) -> Iterator[Verdict]:
    """Who was greeted is no new caller, and what one agent had heard the next one knows. A greeting that broke off may be said anew."""
    if _depth(call.healthy) > _depth(KEEPS_CONTEXT):
        return
    is_greeted = False
    for greeting in call.greetings:
        if is_greeted and greeting.begins < ANEW:
            yield Verdict("memory", greeting.at, "greeted as a new caller, once more")
        is_greeted |= greeting.ends >= GREETED
    carried = [(each.connected_at, each) for each in call.vapi if each.connected_at is not None]
    for at in call.forgot:
        speaks = max((one for one in carried if one[0] <= at), key=lambda one: one[0], default=None)
        if speaks is not None and any(_told_before(each, speaks[1]) for each in call.vapi):
            yield Verdict("memory", at, f"{speaks[1].name} did not know what the caller had said before it was made")


def _told_before(one: AtVapi, next_one: AtVapi) -> bool:
    return one.told_at is not None and one.told_at < next_one.made_at - KNOWN_AFTER_S


def _depth(rung: str) -> int:
    return RUNGS.index(rung) if rung in RUNGS else len(RUNGS)


def _row(call: Witnessed) -> Iterator[Verdict]:
    told = [row for row in call.rows if row.get("status") in TERMINAL and row.get("end_reason")]
    if not told and call.looked_at - call.over_at >= ROW_WITHIN_S:
        seen = ", ".join(str(row.get("status")) for row in call.rows) or "no row"
        yield Verdict("row", call.over_at + ROW_WITHIN_S, f"no terminal state with a reason after {ROW_WITHIN_S:.0f} s: {seen}")


def _lines(call: Witnessed) -> Iterator[Verdict]:
    """Every accepted final must be among the stored words of that role. Sentences may be cut elsewhere than the vendor cut them."""
    stored: dict[str, str] = {}
    for row in call.rows:
        for line in row.get("lines", ()):
            stored[line["role"]] = f"{stored.get(line['role'], ' ')}{plain(line['text'])} "
    finals = [(each, role, words) for each in call.vapi for role, words in each.finals]
    missing = [(each.name, role) for each, role, words in finals if f" {plain(words)} " not in stored.get(role, "")]
    for (name, role), count in Counter(missing).items():
        yield Verdict("line", call.looked_at, f"{count} final of {role} that {name} got 200 for: not in the export")


def _orphans(call: Witnessed) -> Iterator[Verdict]:
    for each in call.vapi:
        alive_s = (call.looked_at if each.over_at is None else each.over_at) - max(call.over_at, each.made_at)
        if alive_s > ORPHAN_AFTER_S:
            yield Verdict("orphan", call.over_at + ORPHAN_AFTER_S, f"{each.name} was still alive {alive_s:.0f} s after the caller had left")


def _twice(call: Witnessed) -> Iterator[Verdict]:
    if len(call.rows) > 1:
        yield Verdict("twice", call.looked_at, f"{len(call.rows)} rows for one phone call")
    yield from _created_again(call)
    carried = [(each.connected_at, each) for each in call.vapi if each.connected_at is not None]
    for (_, first), (since, second) in pairwise(sorted(carried, key=lambda one: one[0])):
        together_s = (call.over_at if first.over_at is None else first.over_at) - since
        if together_s > TOGETHER_S:
            yield Verdict("twice", since, f"{first.name} and {second.name} were carried together for {together_s:.0f} s")


def _created_again(call: Witnessed) -> Iterator[Verdict]:
    """Each agent that was made a second time, though nothing was in the way of the first one's answer."""
    for name in sorted({each.name for each in call.vapi}):
        for first, again in pairwise(sorted(each.made_at for each in call.vapi if each.name == name)):
            asked, stored = first - ASKED_BEFORE_S, min(again, first + STORED_WITHIN_S)
            if not any(begins <= stored and asked <= ends for begins, ends in call.answers_lost):
                yield Verdict("twice", again, f"{name} was created once more, and no fault had kept the answer to the first time")


def _process(call: Witnessed) -> Iterator[Verdict]:
    if call.in_good_order:
        for at in call.broken:
            yield Verdict("process", at, "a media stream broke off, though its process had time to hand the caller on")
    for what in call.unkept:
        yield Verdict("process", call.over_at, what)


def plain(words: str) -> str:
    """Lower case, letters and digits only, one blank between words."""
    return " ".join(re.findall(r"[\w']+", words.lower()))
