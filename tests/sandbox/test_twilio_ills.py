"""What may befall a call at Twilio: callbacks on a bad day, sick media sockets, streams that die, and the REST API's hand in it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from bridge.sandbox.callbacks import LATE_S
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.dial import Human
from bridge.sandbox.media import HOLD_S, Pipe
from bridge.sandbox.script import HangUp, Start, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.virtual import ServerEnd
from tests.sandbox.twilio_house import HOUSE, NUMBER, STREAM, House, clip_message, greet_and_close, opened, place

RESUMING = STREAM + "<Redirect>/resume</Redirect>"
QUIET_S = 3.0  # without a frame, and a server thinks the stream is dead


def told(house: House) -> list[str]:
    """The status callbacks, as they came."""
    return [params.get("StreamEvent") or params["CallStatus"] for path, params in house.asked if path in ("/stream", "/status")]


def after(
    seconds: float, act: Callable[[TwilioCall], object], *, moment: str = "stream-started"
) -> Callable[[TwilioCall], Awaitable[None]]:
    """Do something to a call so long after a moment of it."""

    async def meanwhile(call: TwilioCall) -> None:
        await call.wait_for(moment)
        await asyncio.sleep(seconds)
        act(call)

    return meanwhile


class Listener:
    """A server that only listens, and closes when it hears nothing for QUIET_S (or never)."""

    def __init__(self, *, patient: bool = False) -> None:
        self.seen: list[dict[str, Any]] = []
        self.closed_at = 0.0
        self._patient = patient

    async def __call__(self, server: ServerEnd) -> None:
        await opened(server)
        try:
            while (text := await asyncio.wait_for(server.receive(), None if self._patient else QUIET_S)) is not None:
                self.seen.append(json.loads(text))
        except TimeoutError:
            self.closed_at = asyncio.get_running_loop().time()
            await server.close()

    def events(self) -> list[str]:
        return [message["event"] for message in self.seen]


# ---- callbacks on a bad day


@pytest.mark.parametrize(
    ("manner", "order"),
    [
        ("as-usual", ["stream-started", "stream-stopped", "completed"]),
        ("none", []),
        ("twice", ["stream-started", "stream-started", "stream-stopped", "stream-stopped", "completed", "completed"]),
        ("late", ["stream-started", "stream-stopped", "completed"]),
        ("backwards", ["completed", "stream-stopped", "stream-started"]),
    ],
)
def test_callbacks_come_in_the_manner_that_was_asked_for(manner: str, order: list[str]) -> None:
    house = House({"/voice": STREAM}, greet_and_close)
    call = place(house, callbacks=manner)
    assert told(house) == order
    assert (len(call.callbacks), call.problems, call.verbs) == (len(order), [], ["Connect"])


def test_a_callback_that_comes_twice_carries_one_token() -> None:
    house = House({"/voice": "<Hangup/>"})
    place(house, callbacks="twice")
    tokens = [token for token, (path, _) in zip(house.tokens, house.asked, strict=True) if path == "/status"]
    assert len(tokens) == 2
    assert len({*tokens, ""}) == 2


def test_late_callbacks_hold_up_nothing_but_themselves() -> None:
    call = place(House({"/voice": "<Hangup/>"}), callbacks="late")
    ended = next(moment.at for moment in call.timeline if moment.what == "ended")
    assert call.callbacks[0].at - ended == pytest.approx(LATE_S)


def test_a_manner_nobody_knows_is_refused_at_once() -> None:
    wrongs: tuple[dict[str, Any], ...] = ({"callbacks": "sometimes"}, {"on_abnormal_close": "cry"})
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"not (sometimes|cry)"):
            place(House({}), **wrong)
    with pytest.raises(ValueError, match="not slamming"):
        place(House({"/voice": "<Pause/>"}), meanwhile=after(0, lambda call: call.hang_up("slamming"), moment="asks"))


# ---- sick media sockets


def test_a_half_open_stream_says_nothing_more_and_breaks_when_the_server_lets_go() -> None:
    listener = Listener()
    house = House({"/voice": RESUMING, "/resume": "<Hangup/>"}, listener)
    call = place(house, half_open_after_s=2.0)
    stream = call.streams[0]
    assert set(listener.events()) == {"media"}
    assert len(listener.seen) == pytest.approx(100 - 3, abs=2)
    assert (stream.end, stream.let_go_at) == ("broken", listener.closed_at)
    assert listener.closed_at - stream.started_at == pytest.approx(2.0 + QUIET_S, abs=0.03)
    assert told(house) == ["stream-started", "stream-error", "completed"]
    assert call.verbs == ["Connect", "Redirect", "Hangup"]


def test_what_a_server_says_into_a_half_open_stream_is_heard_by_nobody() -> None:
    async def talk(server: ServerEnd) -> None:
        sid = await opened(server)
        await asyncio.sleep(2.0)
        await server.send(clip_message(sid, CLIPS["greeting"].ulaw))
        await asyncio.sleep(20.0)
        await server.close()

    call = place(House({"/voice": STREAM}, talk), half_open_after_s=1.0)
    assert (call.heard, call.streams[0].media_received, call.violations) == ([], 0, [])


def test_only_the_first_stream_falls_ill() -> None:
    listener = Listener()
    house = House({"/voice": RESUMING, "/resume": STREAM}, listener)
    call = place(house, half_open_after_s=1.0, meanwhile=after(20.0, lambda call: call.hang_up()))
    assert [stream.end for stream in call.streams] == ["broken", "hung-up"]


@pytest.mark.parametrize(("patient", "held_s"), [(False, QUIET_S), (True, HOLD_S)])
def test_a_caller_who_leaves_half_open_is_only_told_of_by_the_status_callback(patient: bool, held_s: float) -> None:
    listener = Listener(patient=patient)
    house = House({"/voice": RESUMING}, listener)
    call = place(house, meanwhile=after(1.0, lambda call: call.hang_up("half-open")))
    moments = {moment.what: moment.at for moment in call.timeline}
    assert set(listener.events()) == {"media"}
    assert (call.streams[0].end, call.status, call.verbs) == ("half-open", "completed", ["Connect"])
    assert call.callbacks[-1].at == moments["ended"] == moments["hung-up"]
    assert told(house)[-1] == "completed"
    if not patient:
        assert call.streams[0].let_go_at == pytest.approx(moments["hung-up"] + held_s, abs=0.03)
    else:
        assert call.streams[0].let_go_at is None


def test_a_slow_reader_hears_late_and_is_heard_all_the_time() -> None:
    frames: list[float] = []

    async def talk(server: ServerEnd) -> None:
        sid, now = await opened(server), asyncio.get_running_loop().time
        speaking = asyncio.get_running_loop().call_later(2.0, lambda: asyncio.ensure_future(speak(server, sid)))
        while await server.receive() is not None:
            frames.append(now())
        speaking.cancel()

    async def speak(server: ServerEnd, sid: str) -> None:
        await server.send(clip_message(sid, CLIPS["goodbye"].ulaw))

    steps = (Step(Start(14.0), HangUp()),)
    call = place(House({"/voice": STREAM}, talk), *steps, slow_reader_after_s=1.0, slow_reader_for_s=5.0)
    stream = call.streams[0]
    assert stream.first_media_at is not None
    assert stream.first_media_at - stream.started_at == pytest.approx(6.0, abs=0.03)
    assert [heard.clip_name for heard in call.heard] == ["goodbye"]
    assert max(b - a for a, b in pairwise(frames)) < 0.021


# ---- streams that die


@pytest.mark.parametrize(
    ("policy", "verbs"), [("next_verb", ["Connect", "Redirect", "Hangup"]), ("stay", ["Connect"]), ("hangup", ["Connect"])]
)
@pytest.mark.parametrize("who", ["server", "network"])
def test_after_a_stream_that_died_the_call_goes_on_stays_or_ends(policy: str, verbs: list[str], who: str) -> None:
    async def dies(server: ServerEnd) -> None:
        await opened(server)
        await asyncio.sleep(1.0 if who == "server" else 999.0)
        await server.close(1006)

    house = House({"/voice": RESUMING, "/resume": "<Hangup/>"}, dies)
    breaks = after(1.0, lambda call: call.break_stream()) if who == "network" else None
    call = place(house, Step(Start(10.0), HangUp()), on_abnormal_close=policy, meanwhile=breaks)
    assert call.verbs == verbs
    assert told(house) == ["stream-started", "stream-error", "completed"]
    assert ("hung-up" in [moment.what for moment in call.timeline]) == (policy == "stay")
    assert call.duration_s == (10 if policy == "stay" else 1)


def test_a_server_that_closes_politely_did_not_die() -> None:
    house = House({"/voice": RESUMING, "/resume": "<Hangup/>"}, greet_and_close)
    assert place(house, on_abnormal_close="hangup").verbs == ["Connect", "Redirect", "Hangup"]


def test_a_socket_that_opens_in_the_very_moment_the_caller_leaves_is_not_left_open() -> None:
    arrived: list[str | None] = []
    calls: list[TwilioCall] = []

    async def listen(server: ServerEnd) -> None:
        arrived.append(await server.receive())

    class Slow(House):
        async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
            pipe = await super().socket(url, headers)
            calls[0].hang_up()
            return pipe

    async def know(call: TwilioCall) -> None:
        calls.append(call)

    call = place(Slow({"/voice": STREAM}, listen), meanwhile=know)
    assert (arrived, call.streams, call.status) == ([None], [], "completed")


# ---- ended and turned by the REST API


def test_a_call_that_is_ended_from_outside_stops_its_stream_and_executes_nothing_more() -> None:
    listener = Listener()
    house = House({"/voice": RESUMING}, listener)
    call = place(house, meanwhile=after(1.0, lambda call: call.end()))
    assert listener.events()[-1] == "stop"
    assert (call.verbs, call.status, call.streams[0].end) == (["Connect"], "completed", "turned")
    assert told(house) == ["stream-started", "stream-stopped", "completed"]
    assert "hung-up" not in [moment.what for moment in call.timeline]


@pytest.mark.parametrize("to", [{"url": f"{HOUSE}/elsewhere"}, {"twiml": "<Response><Say>elsewhere</Say></Response>"}])
def test_a_call_that_is_turned_leaves_its_stream_for_the_other_document(to: dict[str, str]) -> None:
    listener = Listener()
    house = House({"/voice": RESUMING, "/elsewhere": "<Say>elsewhere</Say>"}, listener)
    call = place(house, meanwhile=after(1.0, lambda call: call.turn(**to)))
    assert listener.events()[-1] == "stop"
    assert (call.verbs, call.status) == (["Connect", "Say"], "completed")
    if "url" in to:
        assert house.params("/elsewhere")["CallStatus"] == "in-progress"


def test_a_call_may_be_turned_again_and_out_of_every_verb() -> None:
    """Out of a prompt, a dial, a message and a dead stream's silence; legs that were rung are cancelled, no action is asked."""
    documents = {
        "/voice": f'<Gather action="/never"><Say>{"wait " * 50}</Say></Gather>',
        "/1": f'<Dial action="/never"><Number>{NUMBER}</Number></Dial>',
        "/2": '<Record action="/never"/>',
        "/3": STREAM,
        "/4": "<Hangup/>",
    }

    async def dies(server: ServerEnd) -> None:
        await opened(server)
        await server.close(1006)

    async def turning(call: TwilioCall) -> None:
        for number, moment in enumerate(("say", "ringing", "record", "stream-ended"), start=1):
            await call.wait_for(moment)
            await asyncio.sleep(1.0)
            call.turn(f"{HOUSE}/{number}")

    house = House(documents, dies)
    call = place(house, meanwhile=turning, anyone=Human(rings_s=9), on_abnormal_close="stay")
    assert call.verbs == ["Gather", "Dial", "Record", "Connect", "Hangup"]
    assert "/never" not in [path for path, _ in house.asked]
    assert (call.dials[0].status, call.recordings[0].why, call.recordings[0].silent) == ("canceled", "turned", False)


def test_a_half_open_stream_can_be_turned_away_from() -> None:
    listener = Listener()
    house = House({"/voice": RESUMING, "/elsewhere": "<Hangup/>"}, listener)
    call = place(house, half_open_after_s=1.0, meanwhile=after(2.0, lambda call: call.turn(f"{HOUSE}/elsewhere")))
    assert (call.verbs, call.streams[0].end) == (["Connect", "Hangup"], "half-open")
    assert set(listener.events()) == {"media"}
