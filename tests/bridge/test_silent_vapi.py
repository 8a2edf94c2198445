"""Vapi is silent for some seconds, in whatever moment: both ways hold everything back, then bring it all at once, on a clock that jumps.

The agent's sound then comes late, maybe in two halves with a sentence of ours between them, but all of it, once and in order. Nobody
waits for the other afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridge.sandbox.memory import MemoryClient, MemoryLink
from bridge.sandbox.script import PLAIN, TECHFLOW, Scenario
from supportvoice.laboratory.person import Person
from supportvoice.rehearsal import VapiPipe
from tests.bridge import virtual_time
from tests.bridge.virtual_time import BRIDGE_CLIPS, OneCall, carry_a_call, patience

TROUBLE = BRIDGE_CLIPS["trouble"].ulaw
BEGINNING = 400  # bytes of it, by which it is found
NOTICED_AFTER_S = 3.0  # of no answer to a ping either
PATIENCE_S = 90.0


class SilentClient(MemoryClient):
    """The bridge's end of a wire that carries nothing for a while, and forgets nothing."""

    begins_s = lasts_s = 0.0

    def __init__(self, arrived: asyncio.Queue[bytes | str | None]) -> None:
        super().__init__(arrived)
        self._loop = asyncio.get_running_loop()
        self._from = self._loop.time() + self.begins_s
        self._held: list[Callable[[], None]] = []
        self._is_over = False
        self._loop.call_at(self._from + self.lasts_s, self._go_on)

    @property
    def silent_s(self) -> float:
        """For how long now; 0.0 while it carries."""
        return 0.0 if self._is_over else max(0.0, self._loop.time() - self._from)

    def put(self, message: bytes | str | None) -> None:
        self._carry(lambda: super(SilentClient, self).put(message))

    def send(self, message: bytes | str) -> None:
        self._carry(lambda: super(SilentClient, self).send(message))

    def _carry(self, deliver: Callable[[], None]) -> None:
        if self.silent_s:
            self._held.append(deliver)
        else:
            deliver()

    def _go_on(self) -> None:
        self._is_over = True
        for deliver in self._held:
            deliver()


class SilentLink(MemoryLink):
    def __init__(self) -> None:
        super().__init__()
        self.client = SilentClient(self._arrived)


class NoticingPipe(VapiPipe):
    """Says once a second that nothing comes, as the real link does."""

    def __init__(self, client: SilentClient) -> None:
        super().__init__(client)
        self._silent = client

    async def carry(self, on_message: Callable[[bytes | str], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        looking = asyncio.create_task(self._look(on_silence or (lambda: None)))
        try:
            await super().carry(on_message)
        finally:
            looking.cancel()

    async def _look(self, on_silence: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._silent.silent_s >= NOTICED_AFTER_S:
                on_silence()


@pytest.fixture
def silent_call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OneCall]:
    def call(scenario: Scenario, person: Person, *, begins_s: float, lasts_s: float) -> OneCall:
        monkeypatch.setattr(SilentClient, "begins_s", begins_s)
        monkeypatch.setattr(SilentClient, "lasts_s", lasts_s)
        monkeypatch.setattr(virtual_time, "Caller", lambda _steps: person)
        return carry_a_call(scenario, meddle=patience(PATIENCE_S))

    monkeypatch.setattr(virtual_time, "MemoryLink", SilentLink)
    monkeypatch.setattr(virtual_time, "VapiPipe", NoticingPipe)
    return call


def is_all_that_was_heard(said: bytes, call: OneCall) -> bool:
    """But for a sentence of the bridge's own, or as much as was played of it, in one place."""
    heard = b"".join(bytes(run.ulaw) for run in call.phone.playout._runs)
    place, of_it = heard.find(TROUBLE[:BEGINNING]), len(heard) - len(said)
    if place < 0:
        return heard == said
    return heard[place : place + of_it] == TROUBLE[:of_it] and heard[:place] + heard[place + of_it :] == said


@pytest.mark.parametrize("lasts_s", [2.5, 4.1, 6.5])
@pytest.mark.parametrize("begins_s", [1.9, 3.1, 4.9, 5.5, 6.1, 6.9, 7.1, 7.9, 9.1, 10.9, 12.7, 13.9])
def test_all_that_vapi_says_is_heard_once_and_in_order(silent_call: Callable[..., OneCall], begins_s: float, lasts_s: float) -> None:
    """In the greeting, in the question, in the pause after it, at the first sound of the answer, in it, and in the goodbye."""
    call = silent_call(PLAIN, Person("ask_hours"), begins_s=begins_s, lasts_s=lasts_s)
    assert is_all_that_was_heard(bytes(call.evidence.downlink), call)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"


@pytest.mark.parametrize("lasts_s", [4.0, 4.4])
@pytest.mark.parametrize("begins_s", [1.3, 1.6, 2.2, 2.5, 10.3, 17.2])
def test_afterwards_nobody_waits_for_the_other_or_has_to_ask(silent_call: Callable[..., OneCall], begins_s: float, lasts_s: float) -> None:
    """Also where what was said meanwhile, ours and the agent's, is heard by halves, and what follows comes without a pause."""
    person = Person()
    call = silent_call(TECHFLOW, person, begins_s=begins_s, lasts_s=lasts_s)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    assert person.asked == 0
