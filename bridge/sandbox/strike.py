"""The fault in the middle of a call: it strikes once, at its place in the agent's turns, and what is worst about it comes last."""

from __future__ import annotations

import asyncio
from random import Random

from bridge.sandbox import garbage, sound
from bridge.sandbox.faults import Faults
from bridge.sandbox.mouth import Speech
from bridge.sandbox.telling import Pipe, Teller


class Strike:
    """`await at(turn)` before a turn's first word, `await at(turn, speech)` between its audio messages."""

    def __init__(self, faults: Faults, *, pipe: Pipe, teller: Teller, rng: Random) -> None:
        self._faults = faults
        self._pipe = pipe
        self._teller = teller
        self._rng = rng
        self._struck = False

    async def at(self, turn: int, speech: Speech | None = None) -> bool:
        """True for the one place where it struck. A death and a freeze are left to the caller."""
        if self._struck or not self._is_here(turn, speech):
            return False
        self._struck = True
        faults = self._faults
        self._teller.note("fault", "strikes", turn)
        if faults.slow_s:
            await self._teller.tell("hang")
        await asyncio.sleep(faults.slow_s + faults.stall_s)
        if faults.garbage:
            await garbage.KINDS[faults.garbage](self._pipe, self._rng)
        if faults.babble_s and speech is not None:
            speech.ulaw += sound.tone(int(faults.babble_s * 1000))
        if faults.falls_silent or faults.freezes:
            self._teller.silent = True
        return True

    def _is_here(self, turn: int, speech: Speech | None) -> bool:
        if turn != self._faults.strikes_in_turn:
            return False
        if speech is None:
            return turn == 0 or self._faults.strikes_after_s == 0
        return speech.sent >= self._faults.strikes_after_s * sound.RATE
