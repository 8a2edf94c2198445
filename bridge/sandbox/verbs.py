"""The plain verbs of TwiML: what is said to the caller, which keys they press, and where to go from there."""

from __future__ import annotations

import asyncio

from bridge.sandbox import sound
from bridge.sandbox.asking import Next
from bridge.sandbox.clips import by_text
from bridge.sandbox.leg import Ended, Leg, until
from bridge.sandbox.phone import Keypad
from bridge.sandbox.twiml import Verb

MS_PER_LETTER = 60  # of a <Say> nobody recorded
PLAYED_S = 2.0  # how long a <Play> lasts; the file is not fetched


def spoken(text: str) -> bytes:
    """The words of a <Say>: a clip with exactly that text, else silence as long as they would take."""
    clip = by_text(text)
    return clip.ulaw if clip is not None else sound.silence(len(text) * MS_PER_LETTER)


async def say(leg: Leg, verb: Verb) -> None:
    leg.phone.remember("say", text=verb.text)
    for _ in range(verb.seconds("loop", 1) or 1000):
        await leg.speak(spoken(verb.text))
    leg.phone.remember("said", text=verb.text)


async def play(leg: Leg, verb: Verb) -> None:
    await leg.speak(sound.tone(round(PLAYED_S * 1000)) if verb.text else sound.silence(300 * len(verb.get("digits"))))


async def pause(leg: Leg, verb: Verb) -> None:
    await leg.wait(verb.seconds("length", 1))


async def redirect(leg: Leg, verb: Verb) -> Next:
    return Next(verb.text, verb.get("method", "POST"))


async def reject(leg: Leg, verb: Verb) -> None:
    leg.seen.status = "busy" if verb.get("reason") == "busy" else "no-answer"
    raise Ended


async def hang_up(leg: Leg, verb: Verb) -> None:
    raise Ended


async def gather(leg: Leg, verb: Verb) -> Next | None:
    """Ask for keys. The first one ends the prompt, `timeout` is the patience for each; without any the next verb follows."""
    keypad = Keypad(wanted=verb.seconds("numDigits", 0), finish_on=verb.get("finishOnKey", "#"))
    leg.phone.line = keypad
    try:
        await leg.while_up(until(keypad.pressed, _prompt(leg, verb)))
        leg.phone.playout.stop(leg.phone.now())
        await leg.while_up(_keys(keypad, verb.seconds("timeout", 5)))
    finally:
        leg.phone.line = None
        leg.phone.playout.stop(leg.phone.now())
    if not keypad.digits and not verb.says("actionOnEmptyResult", False):
        return None
    return Next(verb.get("action") or leg.asking.base_url, verb.get("method", "POST"), {"Digits": keypad.digits})


async def _prompt(leg: Leg, verb: Verb) -> None:
    speaking = {"Say": say, "Play": play, "Pause": pause}
    for child in verb.children:
        await speaking[child.name](leg, child)


async def _keys(keypad: Keypad, patience_s: float) -> None:
    """Until the keys are complete, or none came for so long."""
    while not keypad.finished:
        keypad.pressed.clear()
        try:
            async with asyncio.timeout(patience_s):
                await keypad.pressed.wait()
        except TimeoutError:
            return
