"""Which agent answers a number, and which people stand behind it.

Asked once for each call, while the phone rings: so an answer is remembered for each number, and when the database is away
the last one known still holds. Answers are plain values; nothing here reads the database later. Which of several versions
answers is decided by `draw_of(call_sid)`, so that a repeated webhook always meets the same version.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import Error as DatabaseError

from agents import hours, payload
from agents.hours import ALWAYS, Hours
from agents.models import AgentWords, Discretion, HandoffTarget, PhoneLine, TemplateVersion
from agents.payload import ServerAddress, TakenUp, VersionWords

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A person or group to hand over to. Never give `number` to a model or a log line."""

    slug: str
    name: str
    number: str
    ring_seconds: int
    talk_minutes: int = 240


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version of the line, with its weight, the id of its stored assistant ("": send it inline), and what it leaves out, by field."""

    version_id: int
    share: int
    assistant_id: str
    words: VersionWords
    rules: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call on this line is answered. `version` is None when nothing is published: people take the call."""

    line_id: int
    line_name: str
    number: str
    disclosure: str
    voicemail: bool
    targets: tuple[Target, ...]
    version: Candidate | None
    team_id: int | None = None
    hours: Hours = ALWAYS
    zero_for_person: bool = True

    @property
    def version_id(self) -> int | None:
        return self.version.version_id if self.version else None

    @property
    def barge_in(self) -> str:
        return self.version.words.barge_in if self.version else "instant"

    @property
    def greeting_interruptible(self) -> bool:
        return self.version is None or self.version.words.first_message_interruptible


@dataclass(frozen=True, slots=True)
class _Line:
    answer: Answer
    candidates: tuple[Candidate, ...]


_known: dict[str, _Line] = {}  # this process's memory, by number; a dict assignment is atomic, so no lock


def draw_of(call_sid: str) -> float:
    """A number in [0, 1) that is always the same for a call and evenly spread over calls."""
    return int.from_bytes(hashlib.sha256(call_sid.encode()).digest()[:6]) / 2**48


def answer(number: str, *, draw: float) -> Answer | None:
    """How a call to `number` (E.164) is answered; None when it is no line of ours.

    `draw` in [0, 1) chooses among the versions by their shares. Raises django.db.Error only when the database is away and
    this process has never seen the line.
    """
    try:
        line = _read(number)
    except DatabaseError:
        line = _known.get(number)
        if line is None:
            raise
        log.warning("line answered from memory, the database is away")
    else:
        if line is None:
            _known.pop(number, None)
            return None
        _known[number] = line
    return _drawn(line, draw)


def remembered(number: str, *, draw: float) -> Answer | None:
    """`answer`, without asking anybody; None when this process has never seen the line."""
    line = _known.get(number)
    return _drawn(line, draw) if line is not None else None


def warm() -> int:
    """Remember every line now, so that a database lost later costs no call. Returns how many there are."""
    lines = {number: line for number in PhoneLine.objects.values_list("number", flat=True) if (line := _read(number))}
    _known.update(lines)
    return len(lines)


def forget() -> None:
    """Empty this process's memory."""
    _known.clear()


def conversation_request(
    *,
    line_id: int | None,
    version_id: int,
    call_sid: str,
    n: int,
    epoch: int,
    server: ServerAddress,
    variables: Mapping[str, str] | None = None,
    taken_up: TakenUp | None = None,
    prepared: bool = True,
    by_heart: Candidate | None = None,
    claim: str = "",
) -> dict[str, Any]:
    """The body of `POST /call` for a session of a call that this version answers on this line.

    The stored assistant is used when it exists and offers the people this line has; otherwise the words go inline.
    So they do for an account that knows no stored assistants of ours (not `prepared`).
    `taken_up`: it goes on with a conversation that another session had.
    `by_heart` is the version, when the database is known to be away and is not asked.
    Raises django.db.Error only when the database is away and this process has never seen the version on this line.
    """
    chosen = by_heart or _chosen(line_id, version_id)
    stored = chosen.assistant_id if prepared and taken_up is None else ""
    inline = None if stored else payload.assistant(chosen.words, server=server)
    if inline is not None and taken_up is not None:
        inline = payload.resumed(inline, taken_up)
    return payload.call_request(
        call_sid=call_sid,
        n=n,
        epoch=epoch,
        server=server,
        assistant_id=stored,
        inline=inline,
        variables=variables,
        sound=chosen.words.sound,
        claim=claim,
    )


def _chosen(line_id: int | None, version_id: int) -> Candidate:
    try:
        version = TemplateVersion.objects.select_related("template").get(pk=version_id)
        return candidate(version, share=100, targets=tuple(_targets(line_id)))
    except DatabaseError:
        known = version_by_heart(line_id, version_id)
        if known is None:
            raise
        log.warning("version taken from memory, the database is away")
        return known


def version_by_heart(line_id: int | None, version_id: int) -> Candidate | None:
    """A version as this line offers it, without asking anybody; None when this process has not seen it there."""
    known = (each for line in list(_known.values()) if line.answer.line_id == line_id for each in line.candidates)
    return next((each for each in known if each.version_id == version_id), None)


def candidate(version: TemplateVersion, *, share: int, targets: tuple[Target, ...]) -> Candidate:
    """A version as a line with these targets offers it. `version.template` should be loaded."""
    slugs = tuple(target.slug for target in targets)
    words = VersionWords(
        name=version.name,
        slug=version.template.slug,
        number=version.number,
        tools=version.tools,
        targets=slugs,
        **{name: getattr(version, name) for name in AgentWords.word_fields()},
    )
    stored = version.vapi_assistant_id if version.premade == "ready" and tuple(version.premade_targets) == slugs else ""
    rules = {name: getattr(version, name) for name in Discretion.rule_fields()}
    return Candidate(version_id=version.pk, share=share, assistant_id=stored, words=words, rules=rules)


def _targets(line_id: int | None) -> list[Target]:
    rows = HandoffTarget.objects.filter(lines=line_id) if line_id is not None else HandoffTarget.objects.none()
    return [Target(row.slug, row.name, row.number, row.ring_seconds, row.talk_minutes) for row in rows]


def _read(number: str) -> _Line | None:
    line = PhoneLine.objects.select_related("template").filter(number=number).first()
    if line is None:
        return None
    targets = tuple(_targets(line.pk))
    rollouts = line.rollouts.filter(version__template=line.template_id).select_related("version").order_by("version__number")
    shares = [(rollout.version, rollout.share) for rollout in rollouts]
    if not shares and line.template.published is not None:
        shares = [(line.template.published, 100)]
    for version, _ in shares:
        version.template = line.template  # each is a version of it: nothing more has to be read
    candidates = tuple(candidate(version, share=share, targets=targets) for version, share in shares)
    settled = Answer(
        line_id=line.pk,
        line_name=str(line) if line.name else "",
        number=line.number,
        disclosure=line.disclosure,
        voicemail=line.voicemail,
        targets=targets,
        version=None,
        team_id=line.team_id,
        hours=hours.of(line),
        zero_for_person=line.zero_for_person,
    )
    return _Line(answer=settled, candidates=candidates)


def _drawn(line: _Line, draw: float) -> Answer:
    """Shares are weights: the draw falls into one of them, laid end to end in the order of version numbers."""
    settled, rest = line.answer, draw * sum(candidate.share for candidate in line.candidates)
    for each in line.candidates:
        rest -= each.share
        if rest < 0:
            return replace(settled, version=each)
    return settled
