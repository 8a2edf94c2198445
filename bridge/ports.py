"""Door 1: what the bridge needs from the house above it, said as protocols. It imports nothing of that house.

`calls.ledger` is the Ledger, `bridge.vapi_link` the Conversations, `bridge.twilio_http` the Proof; the roof introduces them.
Times called `now` are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.manners import Garbage


@dataclass(frozen=True, slots=True)
class CallRef:
    """A stream's licence to write: the call and the epoch it was admitted with. A stale epoch writes nothing."""

    call_sid: str
    epoch: int
    short_id: str  # what log lines may say


@dataclass(frozen=True, slots=True)
class Admission:
    """A proven stream: whose call it is and how its agent behaves."""

    ref: CallRef
    barge_in: str  # "instant" | "confirm"
    greeting_interruptible: bool = True
    agent_speaks_first: bool = True
    tell_heard: bool = True
    wideband: bool = False  # Vapi was asked for 16-bit sound at 16 kHz; else it hears and speaks Twilio's own
    zero_for_person: bool = True
    keypad_digits: int = 0  # 0: the agent is not told what the caller types
    keypad_end: str = "#"
    longest_s: int = 0  # of one session; 0: nobody says
    goes_on: bool = False  # then, with another session; else the agent says `time_is_up`
    time_is_up: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The Vapi session of a call as the bridge needs it. `socket_url` opens the call to whoever has it: never print it."""

    n: int
    state: str  # asked | claimed | live | failed | ended | parked: it waits in some process for this stream
    account: str = "main"  # whose key opens its socket
    vapi_call_id: str = ""
    socket_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth remembering. `at` is wall time in seconds, `now` the same moment on the monotonic clock."""

    kind: str
    source: str  # twilio | bridge | vapi | tool | human | system
    at: float
    now: float
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """A row somebody wrote for the live call: say, hang-up, hand-over, flush, end-call."""

    id: int
    verb: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a stream is over, and its figures.

    `why`: agent-ended, caller-left, handed-over, hung-up (by us), no-agent, agent-lost, stream-lost, drained; stream-dead, when its
    socket is there and one way or the other nothing gets through; or parked, when the stream was lost and its agent waits here for
    the next one.
    `raw`: the vendor's own reason when there is one. `figures`: the fields of CallMetrics the bridge knows.
    """

    why: str
    raw: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class Ledger(Protocol):
    """The history, seen from a stream. `note`, `heartbeat`, `person_asked` and `done` are called while audio flows; they never block.

    The awaited verbs keep deadlines of their own and raise LedgerAway past them; no frame of sound waits for any of them. It is 0.3 s for
    most; 1 s for `resume`, `given_up` and the first try of `admit`, whose stream has no sound yet, and which tries once more; and 2 s for
    the `ended` of a call in good order.
    """

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        """Use up the one-time token. None: refuse the stream; nothing was changed."""

    async def conversation(self, ref: CallRef) -> Conversation | None:
        """The newest Vapi session of the call; None when the call is over or the epoch is stale."""

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        """Nobody took session n in time: claim it and create the Vapi call here, in a thread of the ledger's own.

        False: too many are being made here, or nobody can claim one now, so ask again.
        `from_another`: somebody did, and must be dead by now; False also when it is at it in this process.
        """

    async def resume(self, ref: CallRef, *, raw: str, n: int, said: Iterable[tuple[str, str]] = ()) -> bool:
        """The agent of this stream, session `n`, is gone: ask for another one. False: none is to be had, the ladder leads down.

        `raw` says how; `longest.ROLLED_OVER` that its time was up, so that the next one is no rung down and says nothing of its own.
        `said` is what this stream heard last (`bridge.lately`), for when the history cannot be asked.
        """

    async def is_parked(self, ref: CallRef) -> bool:
        """The agent of this stream is still waited for: the call goes on, and nobody has taken it up or asked for another one."""

    async def taken_up(self, ref: CallRef) -> bool:
        """The agent of the stream before this one was found parked here. False: another one was asked for, so end it."""

    async def given_up(self, ref: CallRef, waited: Mapping[str, Any]) -> None:
        """The agent of this stream waits no more, and `waited` like this. If another stream is awaited, an agent for that is asked for."""

    def note(self, ref: CallRef, note: Note) -> None: ...

    def heartbeat(self, ref: CallRef) -> None: ...

    def person_asked(self, ref: CallRef) -> None:
        """The caller pressed 0. If anybody can take the call, or a message, a hand-over command follows."""

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        """Commands with an id above `after` that are not done, oldest first."""

    def watching(
        self, ref: CallRef, look: Callable[[], None], heard: Callable[[], Iterable[tuple[str, str]]]
    ) -> AbstractContextManager[None]:
        """Inside, `look` is called within 2 s of a command, or of the news that the call is no longer ours, also if its hint is lost.

        `heard` says, to any thread, what this stream heard last (`bridge.lately`): for others, should this process die.
        """

    def done(self, ref: CallRef, command_id: int) -> None:
        """A command was carried out."""

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        """Store why the stream is over, before the stream is closed: Twilio may ask the resume door at once."""


class LedgerAway(Exception):
    """The history did not answer within its deadline."""


class Link(Protocol):
    """An open Vapi audio socket. Sends never wait: queues are bounded, caller audio that finds no room is dropped and counted."""

    @property
    def dropped_bytes(self) -> int: ...

    @property
    def dropped_frames(self) -> int: ...

    def send_audio(self, ulaw: bytes) -> None: ...

    def send_control(self, message: Mapping[str, Any]) -> None: ...

    async def carry(self, on_message: Callable[[bytes | str | Garbage], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        """Call this with each message, agent audio or a control text, as it comes, until it says False: the next one waits.

        `on_silence` is called once a second while nothing comes, not even an answer to a ping, from the fourth second on.
        Raises LinkClosed, and whatever the two raise.
        """

    def drop(self) -> None:
        """Be gone at once, whatever the peer says; `carry` tells nothing more, and raises LinkClosed."""

    async def close(self) -> None: ...


class LinkClosed(Exception):
    """The Vapi socket is gone; `code` is the WebSocket close code, 1006 when there was none."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Vapi socket closed with {code}")
        self.code = code


class Conversations(Protocol):
    async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> Link:
        """Connect within 2 s, with the key of this account. The link gives and takes telephone sound, whatever Vapi does.

        Raises VapiUnavailable or VapiRefused.
        """


WIRE = "supportvoice.wire"  # in a scope's extensions: {"wire": Wire} once the socket is accepted


class Wire(Protocol):
    """The media socket itself, where the server offers it: no task, no queue, no event.

    The ASGI side goes on: it tells of the end, and sends whenever `write` cannot.
    """

    def listen(self, on_text: Callable[[str], None], *, first: Callable[[bytes], bool]) -> None:
        """Call this with every message from now on, those first that nobody has read; binary ones are empty texts.

        A message that `first` takes, as it came, is no further looked at. Neither must raise: that closes the socket.
        """

    def write(self, text: str) -> bool:
        """Send now. False when the peer reads too slowly, or is gone: nothing was sent."""


class Proof(Protocol):
    def __call__(self, *, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """True when Twilio signed this WebSocket upgrade. `headers` are ASGI's: lower-case names."""
