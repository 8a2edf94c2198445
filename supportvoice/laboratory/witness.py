"""What others saw of one call, as the judge wants it: from the sandbox's evidence and the export. It knows nothing of our rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.playout import sound_samples
from bridge.sandbox.script import ANSWERS, Recall
from bridge.sandbox.sound import FRAME, FRAME_S, RATE, Timed
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.vapi import SandboxCall
from supportvoice.laboratory.judge import AtVapi, Greeting, Span, Witnessed, plain

BREATH_S = 0.3  # a pause between two words is no silence
ENDED_BY_AGENT = "assistant-"
MAX_DURATION = "exceeded-max-duration"
GAVE_UP = "the caller gave up"
CONVERSATION = ("one_moment", "trouble", "connecting_colleague")  # fillers: a sound, but nobody to talk to
GREETING, FORGOT = "greeting", "not_remembered"
WANTED = plain(next(act.words for turn in ANSWERS["what_did_i_say"] for act in turn if isinstance(act, Recall)))
SOUND_WITHIN_S = 1.0  # of the start of a stream
DOCUMENT_WITHIN_S = 0.5  # of being asked for
LATE = ("house", "process_stopped", "machine_stood_still", "caller_spoke")
ONSET_S = 0.5  # within which a sentence that was named, and the moment speech was noticed, are one
REACTIONS = ("asks", "stream-connecting", "dialling", "record", "turned")


def witnessed(
    call: TwilioCall,
    at_vapi: Sequence[SandboxCall],
    rows: Sequence[Mapping[str, Any]],
    *,
    healthy: str,
    looked_at_wall: float,
    gave_up: bool = False,
    static_url: str = "",
    answers_lost: Sequence[Span] = (),
    leads_there: bool = False,
    in_good_order: bool = False,
    unkept: Sequence[str] = (),
    at_backup: Sequence[SandboxCall] = (),
) -> Witnessed:
    """`gave_up`: the caller hung up because nobody served them. `static_url` is rung R5's.

    `answers_lost`: in loop time. `at_backup`: those of `at_vapi` that were made at our second account.
    """
    origin = call.phone.origin
    up_at = (call.answered_at if call.answered_at is not None else origin) - origin
    over_at = next((each.at for each in call.timeline if each.what == "ended"), call.phone.now()) - origin
    return Witnessed(
        up_at=up_at,
        over_at=over_at,
        ended_by=GAVE_UP if gave_up else _ended_by(call, at_vapi),
        healthy=healthy,
        lowest=_lowest(call, at_vapi, at_backup, static_url),
        looked_at=looked_at_wall - call.dialled_wall,
        audible=list(_audible(call)),
        excused=[*_between(call, ("dialling", "record"), ("asks", "ended")), *_between(call, ("say",), ("said", "ended", "turned"))],
        vapi=[_at_vapi(each, call) for each in at_vapi],
        rows=rows,
        greetings=list(_greetings(call)),
        forgot=[final.started_at - origin for final in call.heard if final.clip_name == FORGOT],
        answers_lost=[(begins - origin, ends - origin) for begins, ends in answers_lost],
        leads_there=leads_there,
        in_good_order=in_good_order,
        broken=[stream.ended_at - origin for stream in call.streams if stream.end == "broken" and stream.ended_at is not None],
        unkept=unkept,
    )


def _ended_by(call: TwilioCall, at_vapi: Sequence[SandboxCall]) -> str:
    """Who ended the caller's leg, as an outsider would say it."""
    whats = [moment.what for moment in call.timeline]
    if "hung-up" in whats:
        return "caller"
    if any(attempt.bridged for attempt in call.dials):
        return "human"
    if any(not recording.silent for recording in call.recordings):
        return "voicemail"
    if "presses" in whats and "Gather" in call.verbs:
        return "callback"
    reasons = [each.ended_reason or "" for each in at_vapi]
    if MAX_DURATION in reasons:
        return "max-duration"
    if any(reason.startswith(ENDED_BY_AGENT) for reason in reasons):
        return "agent"
    return f"after {call.verbs[-1] if call.verbs else 'no document at all'}"


def _lowest(call: TwilioCall, at_vapi: Sequence[SandboxCall], at_backup: Sequence[SandboxCall], static_url: str) -> str:
    """The lowest rung that was stood on."""
    if static_url and any(document.url.startswith(static_url) for document in call.documents):
        return "R5"
    if any(moment.what == "record" for moment in call.timeline):
        return "R4"
    if call.dials:
        return "R3"
    if any(each.turns is not None for each in at_backup):
        return "R2"
    carried = [each for each in at_vapi if each.turns is not None]
    opened = [stream for stream in call.streams if stream.end != "refused"]
    return "R1" if len(carried) > 1 or len(opened) > 1 else "R0"


def _audible(call: TwilioCall) -> Iterator[Span]:
    """When the caller heard anything, or spoke."""
    heard, said = call.heard_audio(), call.said_audio()
    since: float | None = None
    last = 0.0
    for place in range(0, len(said), FRAME):
        at = place / RATE
        if sound_samples(heard[place : place + FRAME]) or sound_samples(said[place : place + FRAME]):
            if since is not None and at - last > BREATH_S:
                yield since, last
                since = None
            since, last = at if since is None else since, at + FRAME_S
    if since is not None:
        yield since, last


def _between(call: TwilioCall, first: Sequence[str], until: Sequence[str]) -> Iterator[Span]:
    since: float | None = None
    for moment in call.timeline:
        at = moment.at - call.phone.origin
        if moment.what in first and since is None:
            since = at
        elif moment.what in until and since is not None:
            yield since, at
            since = None


def _greetings(call: TwilioCall) -> Iterator[Greeting]:
    ms = CLIPS[GREETING].ms
    for final in call.heard:
        if final.clip_name == GREETING:
            at = final.started_at + final.heard_from_ms / 1000 - call.phone.origin
            yield Greeting(at, final.heard_from_ms / ms, final.heard_to_ms / ms)


def _at_vapi(call: SandboxCall, phone: TwilioCall) -> AtVapi:
    finals = [each for each in call.webhooks("transcript") if each.get("transcriptType") == "final"]
    return AtVapi(
        name=call.name,
        made_at=_when(call, "createdAt", phone) or 0.0,
        connected_at=_connected_at(call, phone),
        over_at=_when(call, "endedAt", phone),
        finals=tuple((str(each["role"]), str(each["transcript"])) for each in finals),
        told_at=min(_told(call, phone), default=None),
    )


def _when(call: SandboxCall, name: str, phone: TwilioCall) -> float | None:
    told = call.public.get(name)
    return datetime.fromisoformat(told).timestamp() - phone.dialled_wall if told else None


def _connected_at(call: SandboxCall, phone: TwilioCall) -> float | None:
    return _when(call, "startedAt", phone) if call.turns is not None else None


def _told(call: SandboxCall, phone: TwilioCall) -> Iterator[float]:
    """When it was answered with a 200 that the caller had said what they want."""
    for each in call.posted:
        said = each.body["message"]
        is_theirs = each.kind == "transcript" and said.get("transcriptType") == "final" and said.get("role") == "user"
        if is_theirs and each.status is not None and each.status < 300 and WANTED in plain(str(said["transcript"])):
            yield each.at + each.took_s - phone.phone.origin


def first_sounds_s(call: TwilioCall) -> Iterator[float]:
    """Of each media stream: from its start to the first sound of ours that the caller heard on it. A silent one has none."""
    return (first - since for since, first in _first_sounds(call))


def late_sounds(call: TwilioCall, stopped_at: Sequence[float]) -> Iterator[str]:
    """Of each first sound that came too late, whose doing that is: one of `LATE`. `stopped_at`: when its process was made to stand still.

    The machine's only if the sound would have been in time but for what it stood still meanwhile. The caller's if they were speaking as
    it fell due: nobody talks into that, and what had begun gives way.
    """
    spells = [(moment.at, moment.at + CLIPS[moment.detail["clip"]].ms / 1000) for moment in call.timeline if moment.what == "caller-says"]
    for since, first in _first_sounds(call):
        if first - since <= SOUND_WITHIN_S:
            continue
        if any(since <= at <= first for at in stopped_at):
            yield "process_stopped"
        elif first - since - call.phone.stood_still_s(since, first) <= SOUND_WITHIN_S:
            yield "machine_stood_still"
        elif any(began < since + SOUND_WITHIN_S and over > since for began, over in spells):
            yield "caller_spoke"
        else:
            yield "house"


def _first_sounds(call: TwilioCall) -> Iterator[tuple[float, float]]:
    """When each stream began, and when its first sound was heard."""
    for stream in call.streams:
        until = call.phone.now() if stream.ended_at is None else stream.ended_at
        is_open = stream.started_at > 0 and stream.end != "refused"
        first = call.phone.playout.first_sound(stream.started_at) if is_open else None
        if first is not None and first < until:
            yield stream.started_at, first


@dataclass(frozen=True, slots=True)
class HandOver:
    """From one media stream, which we closed, to the next one, on which the caller went on; in seconds."""

    gap_s: float  # in which the caller heard nothing of us: from the end of the one to the first sound on the other
    silence_s: float  # the longest in which neither side was heard, of those that reach into that time
    between_s: float  # one stream and the other


def hand_overs(call: TwilioCall) -> Iterator[HandOver]:
    origin, opened = call.phone.origin, [each for each in call.streams if each.end != "refused"]
    audible: list[Span] | None = None
    for before, after in pairwise(opened):
        if before.end != "server-closed" or before.ended_at is None:
            continue
        audible = sorted(_audible(call)) if audible is None else audible
        until = call.phone.now() if after.ended_at is None else after.ended_at
        first = call.phone.playout.first_sound(after.started_at)
        heard = until if first is None else min(first, until)
        silence_s = _longest_silence_s(audible, before.ended_at - origin, heard - origin)
        yield HandOver(heard - before.ended_at, silence_s, after.started_at - before.ended_at)


def _longest_silence_s(audible: Sequence[Span], since: float, until: float) -> float:
    """Of those that reach into that time, each from where it began; what comes after `until` counts no more."""
    longest, reached = 0.0, 0.0
    for begins, ends in [*audible, (until, until)]:
        if begins > since:
            longest = max(longest, min(begins, until) - reached)
        reached = max(reached, ends)
    return longest


def jitter_s(call: TwilioCall, at_vapi: Sequence[SandboxCall]) -> Iterator[float]:
    """Of each 20 ms that the caller spoke: by how much its way to Vapi took longer or shorter than the one before (RFC 3550).

    It is known by its bytes, so that silence which was filled in counts for nothing.
    """
    for stream in call.streams:
        for session in at_vapi:
            took = list(_ways_s(stream.voiced, session.evidence.voiced))
            yield from (abs(later - earlier) for earlier, later in pairwise(took))


def _ways_s(sent: Sequence[Timed], arrived: Sequence[Timed]) -> Iterator[float]:
    """How long each took, in the order they were sent. One that did not arrive is left out."""
    place = 0
    for at, ulaw in arrived:
        found = next((number for number in range(place, len(sent)) if sent[number][1] == ulaw), None)
        if found is not None:
            place = found + 1
            yield at - sent[found][0]


def well_again_s(calls: Sequence[TwilioCall]) -> float:
    """From the last one's ringing until nobody waited too long for a document any more; 0.0 when nobody did after it."""
    rang = max(call.phone.origin for call in calls)
    late = [at for call in calls for at, waited in _documents(call) if waited > DOCUMENT_WITHIN_S]
    return max([0.0, *(at - rang for at in late)])


def documents_s(call: TwilioCall) -> Iterator[float]:
    """How long Twilio waited for each document."""
    return (waited for _, waited in _documents(call))


def _documents(call: TwilioCall) -> Iterator[tuple[float, float]]:
    """When each came, and how long Twilio had waited for it."""
    asked: float | None = None
    for moment in call.timeline:
        if moment.what == "asks":
            asked = moment.at
        elif moment.what == "document" and asked is not None:
            yield moment.at, moment.at - asked
            asked = None


def noticed_s(call: TwilioCall, at_vapi: Sequence[SandboxCall], struck_at: float) -> float | None:
    """From the strike to the first thing the house did about it that somebody else could see; None when it did nothing."""
    moments = [moment.at for moment in call.timeline if moment.what in REACTIONS and moment.at >= struck_at]
    moments += [entry.at for each in at_vapi[1:] for entry in each.evidence.entries[:1] if entry.at >= struck_at]
    over = next((moment.at for moment in call.timeline if moment.what == "hung-up"), None)
    first = min(moments, default=None)
    if first is None or (over is not None and first >= over) or not _went_on(call, at_vapi, struck_at):
        return None
    return first - struck_at


def _went_on(call: TwilioCall, at_vapi: Sequence[SandboxCall], struck_at: float) -> bool:
    """Whether the call changed its rung after the strike: what a healthy call does at its end is no reaction."""
    streams = [stream for stream in call.streams if stream.started_at and stream.started_at >= struck_at]
    sessions = [each for each in at_vapi[1:] if each.evidence.entries and each.evidence.entries[0].at >= struck_at]
    dials = [attempt for attempt in call.dials if attempt.at >= struck_at]
    return bool(streams or sessions or dials or call.recordings)


def served_again_s(call: TwilioCall, at_vapi: Sequence[SandboxCall], struck_at: float, noticed: float | None) -> float | None:
    """From the strike until the caller hears somebody to talk to, after the house had noticed; None when there was nothing to mend.

    Or until an agent hears them: whoever speaks first is let finish, and does not wait for as long.
    """
    if noticed is None:
        return None
    since = struck_at + noticed
    talk = [final for final in call.heard if final.clip_name not in (None, *CONVERSATION)]
    began = [final.started_at + final.heard_from_ms / 1000 for final in talk]  # the rest of a sentence counts from where it goes on
    served = [at for at in [*began, *_words_cut_short(call)] if at >= since]
    spoke_at = next((moment.at for moment in call.timeline if moment.what == "caller-says" and moment.at >= since), None)
    if spoke_at is not None and all(spoke_at < at for at in served):
        there = [call.phone.origin + at for each in at_vapi if (at := _connected_at(each, call)) is not None]
        served += [max(spoke_at, at) for at in there if at >= struck_at]
    return min((at - struck_at for at in served), default=None)


def _words_cut_short(call: TwilioCall) -> Iterator[float]:
    """When somebody began to speak whom the caller interrupted before the ear could say who. What Twilio says itself is a filler."""
    named = [final.started_at for final in call.heard if final.clip_name is not None]
    origin, read_out = call.phone.origin, list(_between(call, ("say",), ("said", "ended", "turned")))
    for moment in call.timeline:
        at = moment.at - origin
        is_known = any(abs(moment.at - began) < ONSET_S for began in named) or any(since <= at <= until for since, until in read_out)
        if moment.what == "hears-speech" and not is_known:
            yield moment.at
