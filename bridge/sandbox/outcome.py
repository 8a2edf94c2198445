"""Was the caller looked after? What an outsider can hold against a bridge once a call is over, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.sandbox.playout import sound_samples
from bridge.sandbox.script import Caller
from bridge.sandbox.sound import FRAME, FRAME_S
from bridge.sandbox.twilio import TwilioCall

LOST_AFTER_S = 5.0  # of silence while the caller's leg is up
MOST = 10  # complaints of one kind are told


def complaints(call: TwilioCall, caller: Caller, *, left: bool) -> list[str]:
    """What went wrong, empty for a good call. `left`: the caller hung up on purpose."""
    return [*_twilio(call), *_silence(call), *_cut_off(call, caller, left=left)]


def _twilio(call: TwilioCall) -> Iterator[str]:
    for violation in call.violations[:MOST]:
        yield f"Twilio would warn of the stream: {violation.code} {violation.why}"
    for problem in call.problems[:MOST]:
        yield f"Twilio's debugger would show: {problem.code} {problem.why} ({problem.url})"


def _silence(call: TwilioCall) -> Iterator[str]:
    longest, began = longest_silence(call)
    if longest > LOST_AFTER_S:
        yield f"The caller was left in silence for {longest:.1f} s, from {began:.1f} s of the call on."


def _cut_off(call: TwilioCall, caller: Caller, *, left: bool) -> Iterator[str]:
    helped = any(attempt.bridged for attempt in call.dials) or bool(call.recordings)
    if caller.waiting_for and not left and not helped:
        yield f"The caller was cut off while waiting for {caller.waiting_for}."


def longest_silence(call: TwilioCall) -> tuple[float, float]:
    """(seconds, when it began) of the longest time in which neither side was heard, while nobody was being dialled or recorded."""
    if call.answered_at is None:
        return 0.0, 0.0
    heard, said = call.heard_audio(), call.said_audio()
    excused = list(_excused(call))
    longest = began = run = 0.0
    for place in range(int((call.answered_at - call.phone.origin) * 8000) // FRAME * FRAME, len(said), FRAME):
        at = place / 8000
        audible = sound_samples(heard[place : place + FRAME]) or sound_samples(said[place : place + FRAME])
        run = 0.0 if audible or any(start <= at <= end for start, end in excused) else run + FRAME_S
        if run > longest:
            longest, began = run, at - run
    return longest, began


def _excused(call: TwilioCall) -> Iterator[tuple[float, float]]:
    """Times in which Twilio plays ringing, a colleague talks, or the caller leaves a message; seconds of the call."""
    since: float | None = None
    for moment in call.timeline:
        if moment.what in ("dialling", "record") and since is None:
            since = moment.at - call.phone.origin
        elif moment.what in ("asks", "ended") and since is not None:
            yield since, moment.at - call.phone.origin
            since = None
