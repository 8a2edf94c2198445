"""Things that go wrong on purpose. `Faults` are the switches of the sandbox Vapi; `NAMED` are whole faults, both vendors and the caller.

A fault never asks what the other side will make of it: it is something that vendors, networks and callers do. Faults in the
middle of a call strike at a fixed place, `strikes_after_s` into the agent's turn `strikes_in_turn`, so that a call with a
fault can be repeated. Whoever uses a named fault copies its switches first (`switches`): they can be changed during a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from bridge.sandbox import malformed
from bridge.sandbox.dial import Human

RESET = 0  # as a close code: the connection is reset (SO_LINGER 0)
NO_CLOSE_FRAME = 1006  # as a close code: the connection ends without one
EVERY = "*"  # as a kind of webhook
PATIENT_S = 20.0  # a caller to whom nobody answers
UNTIL_TOOL_S = 18.0  # from the caller's first words to the tool call


@dataclass(slots=True)
class Faults:
    """Switches of the sandbox Vapi, all off; may be changed while it runs. Times are seconds."""

    # POST /call
    create_status: int | None = None  # refuse with this status ...
    create_times: int | None = None  # ... so many creates of one phone call; None: all of them
    retry_after: str = ""  # the Retry-After header of such a refusal
    create_delay_s: float = 0.3
    create_drips: bool = False  # the answer comes at one byte a second
    create_tls_half: bool = False  # the sandbox's address is https://, where no TLS handshake completes; over http:// no answer comes
    create_malformed: str = ""  # one of malformed.KINDS
    line_limit: str = ""  # as if all lines were busy: refused (400) | blocked (201 that says so) | ended (201, over at once)
    early_webhook: bool = False  # a status-update is delivered before the create is answered
    delete_refusals: int = 0  # so many `DELETE /call/{id}` are answered with 503: recordings could not be erased
    # the audio socket's upgrade
    socket_status: int | None = None  # refuse it with this status
    socket_never: bool = False  # never answer it
    socket_tls_half: bool = False  # its address is wss://, where no TLS handshake completes
    socket_protocol: str = ""  # a subprotocol nobody asked for
    # the audio socket
    close_after_s: float | None = None  # close it this long after connect ...
    close_code: int = NO_CLOSE_FRAME  # ... with this code (or RESET)
    mute: bool = False  # the agent makes no sound, its messages go on
    deaf: bool = False  # the caller's audio is thrown away
    swapped: bool = False  # the two directions are crossed: everybody hears themselves
    odd_sizes: bool = False  # audio messages of odd and tiny sizes
    pace: float = 1.0  # audio is sent so many times faster than it plays
    sessions: int | None = None  # so many first sessions of a phone call have these faults; None: all of them
    strikes_in_turn: int = 2  # the agent's turn in which those below strike, once; 1 is the greeting, 0 the moment of connect
    strikes_after_s: float = 1.0  # so far into the audio of that turn
    dies_with: int | None = None  # the socket closes with this code (or RESET)
    falls_silent: bool = False  # nothing is sent any more; pings are answered
    freezes: bool = False  # nothing is sent and nothing is read any more, pings neither
    stall_s: float = 0.0  # a hole in the audio
    slow_s: float = 0.0  # the model needs so much longer for that turn, and `hang` is told
    babble_s: float = 0.0  # the turn's audio goes on for so much longer
    garbage: str = ""  # one of garbage.KINDS is poured into the socket
    # webhooks, by kind or EVERY
    no_report: bool = False
    lost: frozenset[str] = frozenset()  # never delivered
    copies: Mapping[str, int] = field(default_factory=dict)  # delivered so often, at the same time
    late_s: Mapping[str, float] = field(default_factory=dict)  # held back so long
    shuffle_s: float = 0.0  # each held back for a random time up to this; tool calls are not
    finals: str = "whole"  # the caller's words come whole | in pieces (Nova) | resent from the start of the turn (Flux)
    tool_arguments_as_text: bool = False  # as the schema says; live traffic mostly sends an object
    tool_call_flat: bool = False  # {id, name, parameters}, as the vendor's pages show it

    def among(self, kind: str, table: Mapping[str, Any], otherwise: Any) -> Any:
        """What a table by kind of webhook says for this one."""
        return table.get(kind, table.get(EVERY, otherwise))


@dataclass(frozen=True, slots=True)
class Leaving:
    """The caller hangs up `then_s` after the first such moment of the call's timeline; `manner` is that of `TwilioCall.hang_up`."""

    moment: str
    then_s: float = 0.0
    manner: str = "stop"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: a sentence for people, and what it takes. `twilio` are keyword arguments of TwilioCall, `scenario` shows it best."""

    says: str
    vapi: Faults = field(default_factory=Faults)
    twilio: Mapping[str, Any] = field(default_factory=dict)
    leave: Leaving | None = None
    scenario: str = "techflow"

    def switches(self) -> Faults:
        return copy(self.vapi)


def _vapi(says: str, **switches: Any) -> Fault:
    return Fault(says, Faults(**switches))


def _in_vain(says: str, *, after: str = "caller-says", patient_s: float = PATIENT_S, **switches: Any) -> Fault:
    """Such a call may never end by itself, so the caller gives up in the end, as people do: `patient_s` after that moment."""
    return Fault(f"{says} The caller gives up after {patient_s:.0f} s.", Faults(**switches), leave=Leaving(after, patient_s))


def _mid_sentence(code: int, how: str) -> Fault:
    return Fault(f"The audio socket {how} in the middle of the agent's second turn.", Faults(dies_with=code), scenario="cut_off")


def _loses(sessions: int, how: str) -> Fault:
    """The caller of such a call notices, and asks what it was about."""
    return Fault(f"The audio socket {how}.", Faults(sessions=sessions, dies_with=1011), scenario="cut_off")


def _leaves(says: str, moment: str, then_s: float = 0.0, *, manner: str = "stop", scenario: str = "techflow", **twilio: Any) -> Fault:
    return Fault(f"The caller hangs up {says}.", twilio=twilio, leave=Leaving(moment, then_s, manner), scenario=scenario)


CREATE: Mapping[str, Fault] = {
    "create-401": _vapi("Vapi refuses the key: POST /call is answered with 401.", create_status=401),
    "create-402": _vapi("The account has no money left: POST /call is answered with 402.", create_status=402),
    "create-403": _vapi("Vapi forbids it: POST /call is answered with 403.", create_status=403),
    "create-429": _vapi("POST /call is answered with 429 and no Retry-After.", create_status=429),
    "create-429-once": _vapi(
        "The first POST /call is answered with 429 and Retry-After: 1, the next one is taken.",
        create_status=429,
        create_times=1,
        retry_after="1",
    ),
    "create-429-wait-9999": _vapi("POST /call is answered with 429 and Retry-After: 9999.", create_status=429, retry_after="9999"),
    "create-429-wait-garbage": _vapi(
        "POST /call is answered with 429 and an unreadable Retry-After.", create_status=429, retry_after="soon"
    ),
    "create-500": _vapi("POST /call is answered with 500.", create_status=500),
    "create-503": _vapi("POST /call is answered with 503.", create_status=503),
    "create-503-once": _vapi("The first POST /call is answered with 503, the next one is taken.", create_status=503, create_times=1),
    "create-slow-3": _vapi("POST /call is answered after 3 s.", create_delay_s=3.0),
    "create-slow-10": _vapi("POST /call is answered after 10 s.", create_delay_s=10.0),
    "create-slow-60": _vapi("POST /call is answered after a minute.", create_delay_s=60.0),
    "create-drip": _vapi("The answer to POST /call comes at one byte a second.", create_drips=True),
    "create-tls-half": _vapi(
        "Vapi takes the connection for POST /call, and its TLS handshake never completes (over http:// no answer comes).",
        create_tls_half=True,
    ),
    "create-over-limit": _vapi("All lines are busy: POST /call is answered with 400 Over Concurrency Limit.", line_limit="refused"),
    "create-blocked": _vapi("All lines are busy: the call is made but says concurrencyBlocked, and never starts.", line_limit="blocked"),
    "create-limit-ended": _vapi("All lines are busy: the call is made and ended at once; only the webhook tells.", line_limit="ended"),
    "webhook-before-create": _vapi("The first webhook of the call arrives before POST /call is answered.", early_webhook=True),
    **{
        f"create-malformed-{kind}": _vapi(f"The answer to POST /call {spoiled.says}.", create_malformed=kind)
        for kind, spoiled in malformed.KINDS.items()
    },
}

SOCKET: Mapping[str, Fault] = {
    "socket-403": _vapi("The audio socket's upgrade is answered with 403.", socket_status=403),
    "socket-500": _vapi("The audio socket's upgrade is answered with 500.", socket_status=500),
    "socket-never": _vapi("The audio socket's upgrade is never answered.", socket_never=True),
    "socket-tls-half": _vapi(
        "Vapi takes the connection for the audio socket, and its TLS handshake never completes.", socket_tls_half=True
    ),
    "socket-subprotocol": _vapi("The audio socket answers with a subprotocol nobody asked for.", socket_protocol="chat.v9"),
    "socket-closes-at-once": _vapi("The audio socket opens and closes with 1008 at once.", strikes_in_turn=0, dies_with=1008),
    **{f"dies-{code}": _mid_sentence(code, f"closes with {code}") for code in (1000, 1001, 1008, 1011, 1012, 1013)},
    "dies-1006": _mid_sentence(NO_CLOSE_FRAME, "ends without a close frame"),
    "dies-once": _loses(1, "closes with 1011 in the middle of the agent's second turn; the next session is sound"),
    "dies-twice": _loses(
        2, "closes with 1011 in the middle of the agent's second turn, and so in the next session; the third one is sound"
    ),
    "dies-reset": _mid_sentence(RESET, "is reset (SO_LINGER 0)"),
    "dies-in-greeting": _vapi(
        "The audio socket closes with 1011 in the middle of the greeting; the next session is sound.",
        sessions=1,
        strikes_in_turn=1,
        dies_with=1011,
    ),
    "mute": _in_vain("From the second turn on Vapi answers pings and sends nothing else.", strikes_after_s=0.0, falls_silent=True),
    "mute-from-the-start": _vapi("Vapi takes the socket, answers pings and never sends anything.", strikes_in_turn=0, falls_silent=True),
    "voice-dies": _in_vain("The agent stops in the middle of a word; pings are answered, nothing else comes.", falls_silent=True),
    "frozen": _in_vain("In the second turn Vapi stops reading and sending, pings included; the connection stays open.", freezes=True),
    "voiceless": _vapi("The agent's messages come, its audio does not.", mute=True),
    "deaf": _in_vain("The caller's audio does not reach the agent.", deaf=True),
    "swapped": _in_vain("Both directions are crossed: everybody hears themselves.", after="stream-started", swapped=True),
    "garbage-bad-json": _vapi("Thirty texts on the socket are no messages: broken JSON, wrong types, deep nesting.", garbage="bad-json"),
    "garbage-huge-text": _vapi("One text on the socket has more than a megabyte.", garbage="huge-text"),
    "garbage-unknown": _vapi("Messages on the socket have types nobody knows.", garbage="unknown"),
    "garbage-flood": _in_vain("A thousand messages a second come for three seconds.", patient_s=2 * PATIENT_S, garbage="flood"),
    "garbage-giant-audio": _vapi("One audio message has 10 MB of noise.", garbage="giant-audio"),
    "garbage-empty": _vapi("A hundred messages on the socket are empty.", garbage="empty"),
    "odd-sizes": _vapi("Audio comes in messages of odd and tiny sizes, single bytes among them.", odd_sizes=True),
    "burst": _vapi("Audio comes fifty times faster than it plays.", pace=50.0),
    "burst-two-minutes": _vapi("The second turn is two minutes of audio, fifty times faster than it plays.", pace=50.0, babble_s=120.0),
    "stall": _vapi("There is a hole of 5 s in the audio of the second turn.", stall_s=5.0),
    "model-slow": _vapi("The model needs 6 s longer for the second turn.", strikes_after_s=0.0, slow_s=6.0),
}

WEBHOOKS: Mapping[str, Fault] = {
    "webhooks-twice": _vapi("Every webhook is delivered twice at the same time, tool calls too.", copies={EVERY: 2}),
    "webhooks-reordered": _vapi("Each webhook is held back for up to 2 s, so that they overtake each other.", shuffle_s=2.0),
    "webhooks-late": _vapi("Every webhook comes 3 s late, tool calls too.", late_s={EVERY: 3.0}),
    "report-100-times": _vapi("The end-of-call report is delivered a hundred times at once.", copies={"end-of-call-report": 100}),
    "lines-after-report": _vapi("Final lines come 5 s late: the last ones after the report.", late_s={"transcript": 5.0}),
    "report-late": _vapi("The end-of-call report comes 15 s after the call.", late_s={"end-of-call-report": 14.0}),
    **{
        f"lost-{kind}": _vapi(f"No {kind} webhook is ever delivered.", lost=frozenset({kind}))
        for kind in ("end-of-call-report", "status-update", "transcript", "speech-update", "user-interrupted")
    },
    "lost-tool-calls": _in_vain("No tool call is ever delivered.", patient_s=UNTIL_TOOL_S + PATIENT_S, lost=frozenset({"tool-calls"})),
    "lost-everything": _in_vain("No webhook is ever delivered.", patient_s=UNTIL_TOOL_S + PATIENT_S, lost=frozenset({EVERY})),
    "finals-in-pieces": _vapi("The caller's final lines come in pieces, as Nova sends them; the report has them whole.", finals="pieces"),
    "finals-resent": _vapi("Each final line of the caller is sent again from its beginning, as Flux does.", finals="resent"),
    "tool-arguments-as-text": _vapi("A tool's arguments are JSON in a string.", tool_arguments_as_text=True),
    "tool-call-flat": _vapi("Tool calls are flat: id, name, parameters.", tool_call_flat=True),
}

TWILIO: Mapping[str, Fault] = {
    "twilio-retry": Fault("The call's first webhook is posted twice at the same time, with one token.", twilio={"duplicates": 2}),
    "callbacks-late": Fault("Twilio's status callbacks come late.", twilio={"callbacks": "late"}),
    "callbacks-twice": Fault("Twilio's status callbacks come twice.", twilio={"callbacks": "twice"}),
    "callbacks-backwards": Fault("Twilio's status callbacks come in the wrong order.", twilio={"callbacks": "backwards"}),
    "callbacks-none": Fault("Twilio sends no status callback at all.", twilio={"callbacks": "none"}),
    "half-open": Fault(
        "After 6 s the media socket carries nothing more in either direction, but stays open.",
        twilio={"half_open_after_s": 6.0},
        scenario="cut_off",
    ),
    "slow-reader": Fault("After 6 s Twilio no longer reads the media socket.", twilio={"slow_reader_after_s": 6.0}),
}

LEAVES: Mapping[str, Fault] = {
    "leaves-while-ringing": _leaves("before the call is answered", "asks"),
    "leaves-in-disclosure": _leaves("in the middle of the disclosure", "say", 0.5),
    "leaves-as-stream-opens": _leaves("while the media socket is being opened", "stream-connecting"),
    "leaves-before-greeting": _leaves("before the greeting", "stream-started", 0.2),
    "leaves-mid-sentence": _leaves("in the middle of the greeting", "stream-started", 2.5),
    "leaves-after-barge-in": _leaves("right after interrupting the agent", "clear", 0.3),
    "leaves-during-dial": _leaves("while a colleague's phone rings", "ringing", 1.0, scenario="person_please"),
    "leaves-during-voicemail": _leaves(
        "while leaving a message", "record", 1.5, scenario="leave_a_message", anyone=Human(outcome="no-answer")
    ),
    "leaves-without-stop": _leaves("in the middle of the greeting, and `stop` is never sent", "stream-started", 2.5, manner="no-stop"),
    "leaves-by-reset": _leaves("in the middle of the greeting, and the media socket is reset", "stream-started", 2.5, manner="vanish"),
    "leaves-half-open": _leaves(
        "in the middle of the greeting, and the media socket stays open and silent", "stream-started", 2.5, manner="half-open"
    ),
}

NAMED: Mapping[str, Fault] = {**CREATE, **SOCKET, **WEBHOOKS, **TWILIO, **LEAVES}
