"""Calls that are known by their sound, byte by byte: for carrying many at once and proving that none got a byte of another.

The caller's whole uplink and everything the agent says are noise made from the call's own seed. 0xFF, silence, never comes in
it, so what a bridge filled in, and the silence between two turns, can be told from what was said. Nobody listens to such a
call: its agent acts by the clock, and its ears cost nothing. Audio is 8 kHz mu-law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from bridge.sandbox.ear import Final, SpeechStarted, Utterance
from bridge.sandbox.script import CallTool, End, Scenario, Speak, Turn
from bridge.sandbox.sound import RATE

SILENCE = b"\xff"
KNOWN_BY = 32  # bytes by which a place in the noise is found again
AGAIN = RATE // 2


def noise(seed: str, seconds: float) -> bytes:
    """The same for the same seed, and never silence."""
    return Random(seed).randbytes(round(seconds * RATE)).replace(SILENCE, b"\xfe")


@dataclass(frozen=True, slots=True)
class Spell:
    """The caller is heard to speak from one moment to another, in seconds after connect; what for is for the script to answer."""

    since: float
    until: float
    what: str


class TimedEar:
    """Hears by the clock: a Recogniser that does not look at the sound. Without spells it is deaf."""

    def __init__(self, spells: Sequence[Spell] = ()) -> None:
        self._spells = list(spells)
        self._began: float | None = None
        self._speaking_since: float | None = None
        self.voiced_ms = 0

    def hear(self, ulaw: bytes, at: float) -> list[Utterance]:
        if not self._spells:
            return []
        if self._began is None:
            self._began = at
        spell, now = self._spells[0], at - self._began
        if self._speaking_since is None and now >= spell.since:
            self._speaking_since = at
            return [SpeechStarted(at)]
        if self._speaking_since is None:
            return []
        self.voiced_ms = round((at - self._speaking_since) * 1000)
        if now < spell.until:
            return []
        since, self._speaking_since, self.voiced_ms = self._speaking_since, None, 0
        self._spells.pop(0)
        return [Final(spell.what, spell.what, at, since, at, 1.0, complete=True)]

    def close(self, at: float) -> list[Utterance]:
        return []


class PatternVoice:
    """An agent's voice that makes noise of any words: each time the next `seconds` of it. `said` has all it was asked for."""

    def __init__(self, seed: str, seconds: Sequence[float]) -> None:
        self._noise = noise(seed, sum(seconds))
        self._lengths = [round(each * RATE) for each in seconds]
        self.said: list[bytes] = []

    def __call__(self, words: str) -> bytes:
        start = sum(map(len, self.said))
        length = self._lengths[min(len(self.said), len(self._lengths) - 1)]
        self.said.append(self._noise[start : start + length])
        return self.said[-1]


SPELLS = (Spell(6.0, 7.2, "asks"), Spell(13.2, 14.4, "breaks in"), Spell(20.5, 21.7, "thanks"))
SECONDS = (4.0, 9.0, 9.0, 2.0, 2.0, 2.0)  # greeting, the tool's result and what follows it (both cut short), goodbye, and to spare
TOOL = CallTool("get_user_account", {"email": "pattern@example.com"}, {}, "tool_failed")


def pattern_call(seed: str) -> tuple[Scenario, PatternVoice]:
    """Some twenty-four seconds: greeting, question, tool call, barge-in, barge-in, goodbye. The voice is the scenario's own."""
    voice = PatternVoice(f"agent {seed}", SECONDS)
    answers: Mapping[str, tuple[Turn, ...]] = {
        "asks": ((TOOL,),),
        "breaks in": ((Speak("another_way"),),),
        "thanks": ((Speak("goodbye"), End()),),
    }
    return Scenario("pattern", caller=(), answers=answers, ear=lambda: TimedEar(SPELLS), voice=voice), voice


class Foreign(Exception):
    """Sound that is not this call's, or not in its order."""


def without_silence(ulaw: bytes) -> bytes:
    return ulaw.replace(SILENCE, b"")


def place_in(noise_said: bytes, arrived: bytes) -> int:
    """Where in what was said the sound that arrived begins. Raises Foreign unless all of it follows from there, byte for byte."""
    place = noise_said.find(arrived[:KNOWN_BY])
    if place < 0 or noise_said[place : place + len(arrived)] != arrived:
        raise Foreign(f"{len(arrived)} bytes are not {'one piece of' if place >= 0 else ''} what was said")
    return place


def turns_in(heard: bytes, said: Sequence[bytes]) -> list[int]:
    """How far each turn was heard, in bytes, `heard` being without silence. Raises Foreign when there is a byte of anything else.

    A turn may end early. And what a caller may have missed may be played again, AGAIN bytes of it, when an interruption turned out to
    be none.
    """
    places = [heard.find(turn[:KNOWN_BY]) for turn in said]
    begun = [place for place in places if place >= 0]
    if begun != sorted(begun) or (begun[:1] or [0])[0] > 0 or (heard and not begun):
        raise Foreign("The turns are not in their order, or something else comes before them.")
    lengths = []
    for place, turn in zip(places, said, strict=True):
        until = min((other for other in begun if other > place), default=len(heard))
        lengths.append(_heard_to(turn, heard[place:until]) if place >= 0 else 0)
    return lengths


def _heard_to(turn: bytes, piece: bytes) -> int:
    place = furthest = 0
    while piece:
        same = _alike(turn[place:], piece)
        furthest, piece = max(furthest, place + same), piece[same:]
        place = turn.find(piece[:KNOWN_BY])
        if not same or (piece and not max(0, furthest - AGAIN) <= place <= furthest):
            raise Foreign(f"After {furthest} bytes of a turn {len(piece)} others were heard.")
    return furthest


def _alike(one: bytes, other: bytes) -> int:
    """How many bytes two pieces of sound have in common from their beginning on."""
    if one.startswith(other):
        return len(other)
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), len(one))
