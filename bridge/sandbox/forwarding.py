"""`<Dial>` as the caller's leg goes through it: who is rung and what they hear is in dial.py; here are the requests around it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from bridge.sandbox import sound
from bridge.sandbox.asking import Next
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.dial import Attempt, Dialling, Human
from bridge.sandbox.fields import child, child_event
from bridge.sandbox.leg import Leg
from bridge.sandbox.twiml import TwimlError, Verb, parse_whisper
from bridge.sandbox.verbs import spoken
from bridge.sandbox.web import WebFailure

T = TypeVar("T")


async def dial(leg: Leg, verb: Verb) -> Next | None:
    caller_id = verb.get("callerId") or leg.parties.from_number
    if caller_id not in (leg.parties.from_number, leg.parties.to_number):
        leg.seen.problem(13214, "caller ID is neither number of this call", leg.asking.base_url)
    dialling = Dialling(
        Forwarding(leg),
        verb,
        caller_id=caller_id,
        humans=leg.human,
        clock=leg.phone.now,
        clips={name: clip.ulaw for name, clip in CLIPS.items()},
        attempts=leg.seen.dials,
    )
    deciding = await dialling.run()
    if not verb.get("action"):
        return None
    fields = {"DialCallStatus": deciding.status, "DialCallSid": deciding.call_sid, "DialBridged": str(deciding.bridged).lower()}
    if deciding.status == "completed":
        fields["DialCallDuration"] = str(deciding.duration_s)
    return Next(verb.get("action"), verb.get("method", "POST"), fields)


class Forwarding:
    """What dialling needs of the call: an `Exchange`."""

    def __init__(self, leg: Leg) -> None:
        self.phone = leg.phone
        self._leg = leg

    def new_call_sid(self) -> str:
        return self._leg.sid("CA")

    async def wait(self, seconds: float) -> None:
        await self._leg.wait(seconds)

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._leg.while_up(work)

    async def whisper(self, attempt: Attempt, noun: Verb, human: Human) -> bool:
        """What who answered hears before being joined. False when that document hangs up, or fails."""
        try:
            request: Next | None = Next(noun.get("url"), noun.get("method", "POST"))
            while request is not None:
                request = await self._whispered(request, attempt, human)
        except (WebFailure, TwimlError) as error:
            self._leg.seen.problem(error.code, error.why, noun.get("url"))
            return False
        except _PutDown:
            return False
        return True

    async def _whispered(self, request: Next, attempt: Attempt, human: Human) -> Next | None:
        _, verbs = await self._leg.ask(request, child(self._leg.parties, attempt), parse_whisper)
        for verb in verbs:
            self._leg.seen.verbs.append(f"whisper:{verb.name}")
            if verb.name == "Hangup":
                raise _PutDown
            for said in verb.children if verb.name == "Gather" else (verb,):
                attempt.whispered.append(said.text)
                await self.wait(len(spoken(said.text)) / sound.RATE)
            if verb.name == "Gather" and human.presses:
                return Next(verb.get("action") or request.url, verb.get("method", "POST"), {"Digits": human.presses})
            if verb.name == "Gather":
                await self.wait(verb.seconds("timeout", 5))
        return None

    def child_event(self, attempt: Attempt, noun: Verb | None) -> None:
        """A step of the child leg: delivered when the noun asked for it."""
        if noun is not None and attempt.events[-1] in noun.get("statusCallbackEvent", "completed").split(" "):
            form = child_event(self._leg.parties, attempt, wall=self._leg.wall())
            self._leg.callbacks.tell(noun.get("statusCallback"), form, noun.get("statusCallbackMethod", "POST"))


class _PutDown(Exception):
    """The whisper ended with a hang-up."""
