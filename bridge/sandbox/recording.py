"""Recordings: `<Record>`, a box that the caller speaks into, and `<Start><Recording>`, which runs beside everything else to the call's end.

A recording is on the shelf, and can be fetched, before its `completed` callback is sent. One without a single sound is `absent`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bridge.sandbox import sound
from bridge.sandbox.asking import Next
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.fields import recorded, recording_event
from bridge.sandbox.leg import HungUp, Interrupted, Leg, Running
from bridge.sandbox.phone import Tape
from bridge.sandbox.seen import Recording
from bridge.sandbox.twiml import TwimlError, Verb, parse
from bridge.sandbox.web import WebFailure


async def start(leg: Leg, verb: Verb) -> None:
    """Record the call from now on; the next verb does not wait."""
    noun = verb.children[0]
    channels = 1 if noun.get("channels") == "mono" else 2
    track, source = noun.get("track", "both"), "StartCallRecordingTwiML"
    recording = Recording(leg.sid("RE"), b"", "", channels=channels, source=source, track=track, wall=leg.wall())
    leg.running.append(Running(noun, recording, len(leg.phone.said)))
    leg.phone.remember("records", sid=recording.sid)
    _tell(leg, noun, recording, "in-progress")


def finish(leg: Leg) -> None:
    """The call is over: so are the recordings of it."""
    while leg.running:
        _end(leg, leg.running.pop(0), "over")


def stop(leg: Leg, sid: str = "") -> Recording | None:
    """The REST API stops a recording, or the one that began last; None when there is no such one under way."""
    running = next((each for each in reversed(leg.running) if sid in ("", each.recording.sid)), None)
    if running is None:
        return None
    leg.running.remove(running)
    return _end(leg, running, "stopped")


def _end(leg: Leg, running: Running, why: str) -> Recording:
    track, said, heard = running.recording.track, leg.seen.said_audio()[running.since :], leg.seen.heard_since(running.since)
    said, heard = b"" if track == "outbound" else said, b"" if track == "inbound" else heard
    recording = replace(running.recording, ulaw=said, heard=heard, why=why)
    _shelve(leg, running.noun, recording)
    return recording


async def record(leg: Leg, verb: Verb) -> Next | None:
    """Tone, message, action. A caller who hung up is past hearing the answer, but the house is told."""
    if verb.says("playBeep", True):
        await leg.speak(sound.tone(400, hertz=1000.0))
    tape = Tape(
        silence_s=verb.seconds("timeout", 5), max_s=verb.seconds("maxLength", 3600), finish_on=verb.get("finishOnKey", "1234567890*#")
    )
    began, interrupted = leg.wall(), await _listen(leg, tape)
    why = tape.why if interrupted is None else "hangup" if isinstance(interrupted, HungUp) else "turned"
    recording = Recording(leg.sid("RE"), bytes(tape.ulaw), why, wall=began)
    _shelve(leg, verb, recording)
    if interrupted is not None and (why == "turned" or recording.silent):
        raise interrupted
    if recording.silent:
        return None
    digits = "hangup" if why == "hangup" else tape.digits
    extra = {**recorded(leg.parties, recording), **({"Digits": digits} if digits else {})}
    action = Next(verb.get("action") or leg.asking.base_url, verb.get("method", "POST"), extra)
    if interrupted is None:
        return action
    await _tell_house(leg, action)
    raise interrupted


async def _listen(leg: Leg, tape: Tape) -> Interrupted | None:
    """Let the caller speak until the tape is finished; or what came between."""
    leg.phone.line = tape
    leg.phone.remember("record")
    message = leg.errands.run(_leave_message(leg))
    try:
        await leg.while_up(tape.finished.wait())
    except Interrupted as interrupted:
        return interrupted
    finally:
        message.cancel()
        leg.phone.line = None
    return None


async def _leave_message(leg: Leg) -> None:
    """What the caller does at the beep."""
    if leg.voicemail is None:
        return
    await asyncio.sleep(0.3)
    leg.phone.say(leg.voicemail)
    await asyncio.sleep(CLIPS[leg.voicemail].ms / 1000 + 0.4)
    leg.phone.hang_up()


async def _tell_house(leg: Leg, action: Next) -> None:
    """Ask the action although nobody will hear what it says; it must still be a document."""
    leg.seen.status = "completed"
    try:
        got = await leg.asking.get(action, {**leg.standard(), **action.extra}, {})
        parse(got.body, got.content_type)
    except (WebFailure, TwimlError) as error:
        leg.seen.problem(error.code, error.why, action.url)


def _shelve(leg: Leg, asked_by: Verb, recording: Recording) -> None:
    leg.seen.recordings.append(recording)
    leg.phone.remember("recorded", sid=recording.sid, why=recording.why)
    _tell(leg, asked_by, recording, "absent" if recording.silent else "completed")


def _tell(leg: Leg, asked_by: Verb, recording: Recording, status: str) -> None:
    """A step of a recording: delivered when whoever asked for it wants to know."""
    if status in asked_by.get("recordingStatusCallbackEvent", "completed").split(" "):
        form = recording_event(leg.parties, recording, status)
        leg.callbacks.tell(asked_by.get("recordingStatusCallback"), form, asked_by.get("recordingStatusCallbackMethod", "POST"))
