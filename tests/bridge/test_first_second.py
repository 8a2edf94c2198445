"""The first seconds of a call, whatever becomes of `POST /call`: something to hear within one, and nothing said is lost.

The client that creates is the real one; its courier plays the sandbox's faults without a network, and time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any, cast

import orjson
import pytest
from pytest_django import Settings

from bridge.agent_leg import CLAIM_AFTER_S, CONVERSATION_POLL_S, CREATED_WITHIN_S
from bridge.consumers import SAID_S
from bridge.deadline import Answer, Courier, NoAnswer
from bridge.errors import VapiError
from bridge.ports import CallRef, Conversation
from bridge.sandbox import malformed
from bridge.sandbox.faults import CREATE, Faults
from bridge.sandbox.script import ANSWERS, Heard, Say, Scenario, Start, Step
from bridge.vapi_http import VapiClient
from tests.bridge.virtual_time import Notebook, OneCall, carry_a_call

BASE = "https://api.vapi.ai"
SOCKET = "wss://api.vapi.ai/one/transport"
CREATED: dict[str, Any] = {
    "id": "one",
    "transport": {"provider": "vapi.websocket", "websocketCallUrl": SOCKET},
    "monitor": {"controlUrl": "https://api.vapi.ai/one/control"},
    "subscriptionLimits": {"concurrencyBlocked": False},
}
DRIPS_S = 1.0
SENT_WITHIN_S = 1.0 - SAID_S  # on these pipes there is no way to the ear
EARLY = Scenario(
    "early",
    caller=(
        Step(Start(0.2), Say("ask_hours")),
        Step(Heard("opening_hours"), Say("no_thanks")),
    ),
    opening=(),
    answers=ANSWERS,
)
SILENT = Scenario("silent", caller=())
ENDS = Faults(close_after_s=8.0, close_code=1000)  # nobody else ends a call in which nobody speaks


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


@dataclass
class PlayedCourier:
    """Answers as the faults say; waiting for an answer, or for another try, only moves `now`."""

    faults: Faults
    now: float = 0.0
    asked: int = 0

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str], within: float, max_bytes: int) -> Answer:
        if url.endswith("/control"):
            return Answer(200, b"{}", whole=True)
        self.asked += 1
        faults = self.faults
        wait = float("inf") if faults.create_tls_half else faults.create_delay_s
        text = b"".join(islice(self._body(), 8))[: max_bytes + 1]
        if faults.create_drips:
            wait += len(text) * DRIPS_S
        if wait > within:
            self.now += within
            raise NoAnswer(sent=True, late=True)
        self.now += wait
        refused = faults.create_status is not None and (faults.create_times is None or self.asked <= faults.create_times)
        if refused and faults.create_status is not None:
            return Answer(faults.create_status, b"{}", whole=True, retry_after=faults.retry_after)
        if faults.line_limit == "refused":
            return Answer(400, b"{}", whole=True)
        return Answer(201, text[:max_bytes], whole=len(text) <= max_bytes)

    def _body(self) -> Iterator[bytes]:
        blocked = {"subscriptionLimits": {"concurrencyBlocked": self.faults.line_limit == "blocked"}}
        if self.faults.create_malformed:
            return malformed.KINDS[self.faults.create_malformed].body(CREATED, "two")
        return iter((orjson.dumps(CREATED | blocked),))


@dataclass
class Created(Notebook):
    """The session of a call that somebody began to create when the stream opened."""

    faults: Faults = field(default_factory=Faults)
    creating: asyncio.TimerHandle | None = None

    async def conversation(self, ref: CallRef) -> Conversation | None:
        if self.creating is None:
            self.state = "claimed"
            self._create()
        return await super().conversation(ref)

    def _create(self) -> None:
        played = PlayedCourier(self.faults)
        client = VapiClient(base_url=BASE, api_key="key", courier=cast(Courier, played), jitter=lambda: 0.5)

        def pause(seconds: float) -> None:
            played.now += seconds

        try:
            client.create_call({}, pause=pause, clock=lambda: played.now)
            state = "live"
        except VapiError:
            state = "failed"
        self.creating = asyncio.get_running_loop().call_later(played.now, self._became, state)

    def _became(self, state: str) -> None:
        self.state = state


@dataclass
class CreatorDied(Notebook):
    """The session of a call whose creator died with its claim; the bridge's own create takes `takes_s`, None for ever."""

    takes_s: float | None = None
    claims: int = 0
    state: str = "claimed"

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        assert from_another
        self.claims += 1
        if self.takes_s is not None:
            asyncio.get_running_loop().call_later(self.takes_s, setattr, self, "state", "live")
        return True


@dataclass
class NobodyMakesIt(Notebook):
    """Sessions that no worker claims; `waited_s`: how long after each was asked for the bridge did."""

    agents: int = 2
    asked_at: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)

    async def conversation(self, ref: CallRef) -> Conversation | None:
        if len(self.asked_at) == len(self.lost):
            self.asked_at.append(asyncio.get_running_loop().time())
            self.state = "asked"
        return await super().conversation(ref)

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        self.waited_s.append(asyncio.get_running_loop().time() - self.asked_at[n])
        self.state = "live"
        return True


@dataclass
class TooManyAtOnce(NobodyMakesIt):
    """The ledger has no room for the first few claims of each session. `died`: somebody had claimed it, and is gone."""

    died: bool = False
    refused: int = 0

    async def conversation(self, ref: CallRef) -> Conversation | None:
        known = await super().conversation(ref)
        return replace(known, state="claimed") if known is not None and self.died and self.state == "asked" else known

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        assert from_another is self.died
        if self.refused < 3:
            self.refused += 1
            return False
        return await super().claim(ref, n, from_another=from_another)


@dataclass
class ClaimedInVain(NobodyMakesIt):
    """The first claim of each session does not get into the rows."""

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        await super().claim(ref, n, from_another=from_another)
        self.state = "asked" if len(self.waited_s) % 2 else "live"
        return True


def first_heard_s(call: OneCall) -> float:
    at = call.phone.playout.first_sound(call.facts.started_at)
    assert at is not None
    return at - call.facts.started_at


@pytest.mark.parametrize("name", CREATE)
def test_something_is_heard_within_a_second_whatever_becomes_of_the_create(name: str) -> None:
    faults = CREATE[name].switches()
    call = carry_a_call(SILENT, faults=ENDS, notebook=Created(faults=faults))
    assert first_heard_s(call) < SENT_WITHIN_S
    heard = [final.clip_name for final in call.phone.heard]
    assert heard[-1] == "connecting_colleague"
    assert ("greeting" in heard) == (call.notebook.state == "live")


def test_the_bridge_makes_an_agent_that_nobody_claims_after_a_second_and_the_one_after_a_lost_one_at_once() -> None:
    call = carry_a_call(SILENT, faults=Faults(close_after_s=3.0, close_code=1011), notebook=NobodyMakesIt())
    assert isinstance(call.notebook, NobodyMakesIt)
    assert call.notebook.waited_s == [pytest.approx(1.0, abs=0.11), pytest.approx(0.2, abs=0.11)]


def test_a_claim_that_did_not_get_into_the_rows_is_made_again_after_a_second() -> None:
    call = carry_a_call(SILENT, faults=Faults(close_after_s=3.0, close_code=1011), notebook=ClaimedInVain())
    assert isinstance(call.notebook, ClaimedInVain)
    assert call.notebook.waited_s == [pytest.approx(after_s, abs=0.21) for after_s in (1.0, 2.0, 0.2, 1.2)]


@pytest.mark.parametrize(("died", "after_s"), [(False, CLAIM_AFTER_S), (True, CREATED_WITHIN_S)])
def test_an_agent_that_there_was_no_room_to_make_is_made_as_soon_as_there_is(died: bool, after_s: float) -> None:
    notebook = TooManyAtOnce(died=died)
    carry_a_call(SILENT, faults=ENDS, notebook=notebook)
    assert notebook.refused == 3
    waited_s = notebook.waited_s[0]
    assert waited_s == pytest.approx(after_s + 3 * CONVERSATION_POLL_S)


@pytest.mark.parametrize("takes_s", [0.5, 2.95])
def test_a_caller_whose_agents_creator_died_gets_the_agent_from_the_bridge_and_is_asked_for_patience_until_then(takes_s: float) -> None:
    call = carry_a_call(SILENT, faults=ENDS, notebook=CreatorDied(takes_s=takes_s))
    heard = [(final.clip_name, final.started_at) for final in call.phone.heard]
    assert [name for name, _ in heard][:3] == ["one_moment", "one_moment", "greeting"]
    assert all(after - before < 5.0 for (_, before), (_, after) in pairwise(heard[:3]))
    assert isinstance(call.notebook, CreatorDied)
    assert call.notebook.claims == 1


def test_a_caller_whose_agent_is_never_made_is_not_asked_for_patience_for_ever() -> None:
    call = carry_a_call(SILENT, notebook=CreatorDied())
    assert [final.clip_name for final in call.phone.heard] == ["one_moment", "one_moment", "connecting_colleague"]
    assert call.left_at < 14.0


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.74, 0.75, 0.8, 0.9, 1.0, 1.5, 2.5, 2.95])
@pytest.mark.parametrize("wideband", [False, True])
@pytest.mark.parametrize("agent_speaks_first", [False, True])
def test_something_is_heard_within_a_second_however_long_a_create_takes(delay_s: float, wideband: bool, agent_speaks_first: bool) -> None:
    wants = {"wideband": wideband, "agent_speaks_first": agent_speaks_first}
    call = carry_a_call(SILENT, faults=ENDS, notebook=Created(faults=Faults(create_delay_s=delay_s), admission=wants))
    assert first_heard_s(call) < SENT_WITHIN_S
    assert "greeting" in [final.clip_name for final in call.phone.heard]


@pytest.mark.parametrize("delay_s", [0.5, 2.95])
@pytest.mark.parametrize("admits_after_s", [0.1, 0.3, 0.5, 0.59, 0.61, 0.7, 0.9, 1.5, 2.5])
def test_something_is_heard_within_a_second_however_long_a_stream_waits_to_be_let_in(admits_after_s: float, delay_s: float) -> None:
    call = carry_a_call(SILENT, faults=ENDS, notebook=Created(faults=Faults(create_delay_s=delay_s), admits_after_s=admits_after_s))
    assert first_heard_s(call) < SENT_WITHIN_S
    assert "greeting" in [final.clip_name for final in call.phone.heard]


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 2.0, 2.95])
@pytest.mark.parametrize("wideband", [False, True])
def test_what_the_caller_said_before_the_agent_was_there_is_understood(delay_s: float, wideband: bool) -> None:
    wants = {"wideband": wideband, "agent_speaks_first": False}
    call = carry_a_call(EARLY, notebook=Created(faults=Faults(create_delay_s=delay_s), admission=wants))
    assert [final.clip_name for final in call.evidence.understood] == ["ask_hours", "no_thanks"]
    assert all(final.complete for final in call.evidence.understood)
    assert call.notebook.closing is not None
    audio = call.notebook.closing.figures["audio"]
    assert audio["from_caller_dropped"] == 0
    assert audio["from_caller_held_most"] >= (delay_s - 0.2) * 8000


def test_what_was_said_to_an_agent_who_never_came_is_counted_as_left() -> None:
    call = carry_a_call(SILENT, notebook=Created(faults=CREATE["create-slow-60"].switches()))
    assert call.notebook.closing is not None
    audio = call.notebook.closing.figures["audio"]
    assert audio["from_caller_held_most"] == audio["from_caller_left"] <= 5 * 8000
    assert audio["from_caller"] == audio["from_caller_dropped"] + audio["from_caller_left"]
