"""Whole calls in one process and in no time: the real consumer between both vendors' sandboxes, on a clock that jumps.

Nobody is called and nothing is stored; what an agent's words make of a conversation can be measured in a moment. The assistant
is the one Vapi would be given: the sandbox decides by its plans.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from agents import presets, services
from agents.models import AssistantTemplate, AtLongest, FirstMessageMode, Sound
from agents.payload import Said, ServerAddress, TakenUp, VersionWords, assistant, resumed
from bridge.audio import load_clips
from bridge.consumers import MediaStreamConsumer
from bridge.longest import ROLLED_OVER
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, Link, LinkClosed, Note
from bridge.sandbox import virtual
from bridge.sandbox.clips import CLIPS, spoken_by
from bridge.sandbox.ear import Ear, Recogniser
from bridge.sandbox.media import MediaSide
from bridge.sandbox.memory import MemoryClient, MemoryLink
from bridge.sandbox.mouth import voice
from bridge.sandbox.phone import Phone
from bridge.sandbox.script import ANSWERS, Caller, Heard, Say, Scenario, Step
from bridge.sandbox.sound import FRAME_S
from bridge.sandbox.turns import Evidence, Faults, Message, Plan, Turns
from bridge.sandbox.virtual import MemoryPipe
from bridge.sandbox.wideband import WidePipe
from bridge.wideband import Wideband

OUR_CLIPS = load_clips(Path(__file__).parent.parent / "bridge" / "clips")
NOWHERE = ServerAddress(url="https://rehearsal.invalid/webhook/vapi", secret="")
LONGEST_S = 11 * 3600.0
BREAKS_IN = "already_tried"
BREAK_IN_AT = (1.7, 2.4, 3.2, 4.1, 5.0, 6.2, 7.3)  # seconds into a long sentence


@dataclass
class Rehearsed:
    """What outside observers saw of a call, and what the bridge noted of it."""

    phone: Phone
    evidence: Evidence  # of Vapi's sessions, one after the other
    notes: list[Note] = field(default_factory=list)
    closing: Closing | None = None
    ended_at: float = 0.0  # on the clock of all its times
    said_at_vapi: list[Message] = field(default_factory=list)  # as its report tells it

    def details(self, kind: str) -> list[Mapping[str, Any]]:
        return [note.detail for note in self.notes if note.kind == kind]

    @property
    def sentences_cut(self) -> int:
        """Sentences of the agent's that the caller did not hear to their end."""
        return sum(not final.complete for final in self.phone.heard if final.clip_name is not None)


def words(preset: str, **other: Any) -> VersionWords:
    """An agent as the desk would begin it, for callers from there."""
    draft = AssistantTemplate(prompt="-", first_message=CLIPS["greeting"].text, voice_id="-", callers_from=preset)
    filled = presets.values(preset, transcriber=draft.transcriber_provider)
    return VersionWords(name="rehearsal", slug="rehearsal", number=1, tools=[], **{**services.words_of(draft), **filled, **other})


def rehearse(
    scenario: Scenario,
    agent: VersionWords,
    *,
    seed: int = 1,
    faults: Faults | None = None,
    hears: Recogniser | None = None,
    stream: Callable[[], StreamPipe] | None = None,
) -> Rehearsed:
    """One call with this agent, from the stream's start to its end.

    `hears` is the caller's ear, and `stream` the network between Twilio and the bridge, if not the usual ones.
    """
    return virtual.run(_call(scenario, agent, seed, faults or Faults(), hears or Ear(spoken_by("agent")), stream or StreamPipe))


def time_to_silence_ms(preset: str, *, moments: Sequence[float] = BREAK_IN_AT) -> int:
    """From the caller's first sound over the agent to the agent's last one, at the caller's ear; the median over these moments."""
    return round(median(_silence_after(rehearse(_breaks_in(at), words(preset))) for at in moments))


def _breaks_in(at: float) -> Scenario:
    steps = (
        Step(Heard("greeting"), Say("cannot_log_in")),
        Step(Heard("reset_steps", into_s=at), Say(BREAKS_IN)),
        Step(Heard("ask_email"), Say("no_thanks")),
    )
    return Scenario("breaks_in", caller=steps, answers=ANSWERS)


def _silence_after(call: Rehearsed) -> float:
    """To the last frame with sound before the agent's next turn, in ms."""
    broke_in = next(moment.at for moment in call.phone.timeline if moment.what == "caller-says" and moment.detail["clip"] == BREAKS_IN)
    starts = (entry.at for entry in call.evidence.entries if entry.way == "out" and agent_starts(entry.detail))
    at = next(start for start in starts if start > broke_in)
    while at > broke_in and not call.phone.playout.sound_ms(at - FRAME_S, at):
        at -= FRAME_S
    return (at - broke_in) * 1000


def agent_starts(message: Any) -> bool:
    match message:
        case {"type": "speech-update", "role": "assistant", "status": "started"}:
            return True
    return False


class StreamPipe(MemoryPipe):
    """The media socket: the sandbox's Pipe at one end, ASGI's receive and send at the other."""

    _welcomed = False

    async def asgi_receive(self) -> Mapping[str, Any]:
        if not self._welcomed:
            self._welcomed = True
            return {"type": "websocket.connect"}
        text = await self.server.receive()
        return {"type": "websocket.disconnect", "code": 1000} if text is None else {"type": "websocket.receive", "text": text}

    async def asgi_send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.server.send(message["text"])
        elif message["type"] == "websocket.close":
            await self.server.close(message["code"])


class VapiPipe:
    """The bridge's Link, on the sandbox's in-memory socket."""

    dropped_bytes = dropped_frames = 0

    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    def send_audio(self, ulaw: bytes) -> None:
        self._client.send(ulaw)

    def send_control(self, message: Mapping[str, Any]) -> None:
        self._client.send(json.dumps(dict(message)))

    async def carry(self, on_message: Callable[[bytes | str], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        while (message := await self._client.receive()) is not None:
            if not on_message(message):
                return
        raise LinkClosed(self._client.close_code or 1006)

    def drop(self) -> None:
        self._client.close()
        self._client.put(None)

    async def close(self) -> None:
        self._client.close()


class _Alone(MediaStreamConsumer):
    """A consumer that nobody gives hints to."""

    async def _hear_hints(self) -> None:
        return


class _Notebook:
    """A ledger that writes into what was rehearsed."""

    def __init__(self, call: Rehearsed, agent: VersionWords) -> None:
        self._call, self._agent = call, agent
        self._n = 0

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        return Admission(
            CallRef(call_sid, 0, "rehearsal"),
            barge_in=self._agent.barge_in,
            greeting_interruptible=self._agent.first_message_interruptible,
            agent_speaks_first=self._agent.first_message_mode != FirstMessageMode.CALLER_FIRST,
            tell_heard=self._agent.tell_heard,
            wideband=self._agent.sound == Sound.WIDEBAND,
            longest_s=self._agent.max_duration_s,
            goes_on=self._agent.at_longest == AtLongest.GO_ON,
            time_is_up=self._agent.time_is_up,
        )

    async def conversation(self, ref: CallRef) -> Conversation | None:
        return Conversation(self._n, "live", socket_url="ws://in-memory")

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        return True

    async def resume(self, ref: CallRef, *, raw: str, n: int, said: Iterable[tuple[str, str]] = ()) -> bool:
        self._n += raw == ROLLED_OVER
        return raw == ROLLED_OVER

    async def is_parked(self, ref: CallRef) -> bool:
        return False

    async def taken_up(self, ref: CallRef) -> bool:
        return False

    async def given_up(self, ref: CallRef, waited: Mapping[str, Any]) -> None:
        return

    def note(self, ref: CallRef, note: Note) -> None:
        self._call.notes.append(note)

    def heartbeat(self, ref: CallRef) -> None:
        return

    def person_asked(self, ref: CallRef) -> None:
        return

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        return []

    @contextmanager
    def watching(self, ref: CallRef, look: Callable[[], None], heard: Callable[[], Iterable[tuple[str, str]]]) -> Iterator[None]:
        yield  # there is nothing to look for

    def done(self, ref: CallRef, command_id: int) -> None:
        return

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        self._call.closing = closing


async def _no_tools(message: Message) -> Message | None:
    return None


def _said(engine: Turns) -> list[Said]:
    """What was said in a session, for the next one to be told."""
    spoken = (("assistant", "bot"), ("user", "user"))
    return [Said(role, str(turn["message"])) for turn in engine.conversation.in_turns() for role, name in spoken if turn["role"] == name]


class _Vapi:
    """Vapi without a wire: one session after the other, each told what was said in those before it."""

    def __init__(self, scenario: Scenario, agent: VersionWords, *, seed: int, faults: Faults, evidence: Evidence) -> None:
        self._scenario, self._agent, self._seed = scenario, agent, seed
        self._faults, self._evidence = faults, evidence
        self._sessions: list[Turns] = []
        self._told: list[Said] = []
        self._running: list[asyncio.Task[str]] = []

    async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> Link:
        link, body = MemoryLink(), assistant(self._agent, server=NOWHERE)
        if self._sessions:
            self._told += _said(self._sessions[-1])
            body = resumed(body, TakenUp(self._told, opening=""))
        scenario = self._scenario
        session = Turns(
            pipe=WidePipe(link) if wideband else link,
            post=_no_tools,
            scenario=scenario,
            ear=scenario.ear() if scenario.ear else Ear(spoken_by("caller")),
            plan=Plan.of(body),
            rng=random.Random(self._seed),  # noqa: S311
            wall=asyncio.get_running_loop().time,
            evidence=self._evidence,
            faults=self._faults,
            voice=scenario.voice or voice,
            times=scenario.times,
        )
        self._sessions.append(session)
        self._running.append(asyncio.create_task(session.run()))
        ours = VapiPipe(link.client)
        return Wideband(ours) if wideband else ours

    async def finished(self) -> list[Message]:
        """What was said in all sessions, when the last one is over."""
        await asyncio.gather(*self._running)
        return [message for session in self._sessions for message in session.conversation.in_turns()]


async def _call(
    scenario: Scenario, agent: VersionWords, seed: int, faults: Faults, hears: Recogniser, opened: Callable[[], StreamPipe]
) -> Rehearsed:
    loop = asyncio.get_running_loop()
    stream = opened()
    call = Rehearsed(Phone(Caller(scenario.caller), hears), Evidence())
    vapi = _Vapi(scenario, agent, seed=seed, faults=faults, evidence=call.evidence)
    consumer = _Alone(
        ledger=_Notebook(call, agent),
        conversations=vapi,
        proof=lambda *, path, headers: True,
        clips=OUR_CLIPS,
        clock=loop.time,
        wall=loop.time,
    )
    twilio = MediaSide(stream, call.phone, stream_sid="MZ1", call_sid="CA1", account_sid="AC1", parameters={"token": "-"})
    served = asyncio.create_task(consumer({"type": "websocket", "path": "/", "headers": []}, stream.asgi_receive, stream.asgi_send))
    ticking = asyncio.create_task(call.phone.run())
    call.phone.connected()
    async with asyncio.timeout(LONGEST_S):
        await asyncio.gather(twilio.run(), served)
    ticking.cancel()
    call.ended_at = loop.time()
    call.phone.last_words()
    call.said_at_vapi = await vapi.finished()
    return call
