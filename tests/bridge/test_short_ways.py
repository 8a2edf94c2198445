"""The short ways through the core are the long ways: what is played, noted and remembered is the same, whatever happened before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge import vapi_messages as vapi
from bridge.actions import Action, ToAgent
from bridge.audio import ms
from bridge.core import BridgeCore
from bridge.rules import Rules
from bridge.voice import AgentVoice, MarkCaller, Relayed, ToCaller
from tests.bridge.test_any_events import SAYS
from tests.bridge.test_core import CLIPS

Event = tuple[str, Any]
SIZES = st.sampled_from([1, 159, 160, 170, 320, 371, 743, 1600, 4000])
EVENTS = st.one_of(
    st.tuples(st.just("sound"), SIZES),
    st.tuples(st.just("sound"), SIZES),
    st.tuples(st.just("speech"), st.integers(2, 20)),
    st.tuples(st.just("speech"), st.integers(2, 20)),
    st.tuples(st.just("passes"), st.sampled_from([0.0, 0.02, 0.046, 0.1, 0.35, 1.0, 4.2])),
    st.tuples(st.just("caller"), st.sampled_from([1, 160, 320])),
    st.tuples(st.just("says"), st.sampled_from([*SAYS, "starts", "starts", "stops"])),
    st.tuples(st.just("marks"), st.integers(1, 4)),
    st.tuples(
        st.just("does"),
        st.sampled_from(["connects", "connects", "lost", "anew", "flush", "hand over", "hand on", "leave", "leave now", "ticks", "key"]),
    ),
)


class OneCall:
    """A core, with what it did and the marks it waits for. `short`: sound goes the short way where there is one."""

    def __init__(self, rules: Rules, *, short: bool) -> None:
        self.core, self.rules, self.short, self.now = BridgeCore(rules, clips=CLIPS, now=100.0), rules, short, 100.0
        self.did: list[Action] = []
        self.at_twilio: deque[str] = deque()
        self.shortened = 0
        self.do(self.core.agent_connected(self.now))

    def do(self, actions: list[Action]) -> None:
        self.did += actions
        self.at_twilio += [action.name for action in actions if isinstance(action, MarkCaller)]

    def sound(self, size: int) -> None:
        ulaw, before = bytes(size), self.core.next_but_gap()
        sound = self.core.relays_agent(ulaw, self.now) if self.short else None
        if sound is None:
            self.do(self.core.agent_audio(ulaw, self.now))
            return
        self.shortened += 1
        self.do(spelled_out(sound))
        assert self.core.next_but_gap() >= min(before, self.now + self.rules.ask_after)  # nobody is told of a deadline

    def caller(self, size: int) -> None:
        if self.short and self.core.relays_caller(bytes(size), self.now):
            self.shortened += 1
            self.do([ToAgent(bytes(size))])
        else:
            self.do(self.core.caller_audio(bytes(size), self.now))

    def speech(self, messages: int) -> None:
        """As it comes: each piece when the one before has been played."""
        for _ in range(messages):
            self.sound(371)
            self.passes(0.046)

    def passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.core.next_deadline()) is not None and at <= until:
            self.now = max(self.now, at)
            self.do(self.core.tick(self.now))
        self.now = until

    def marks(self, count: int) -> None:
        for _ in range(min(count, len(self.at_twilio))):
            before = self.core.next_but_gap()
            did = self.core.mark_returned(self.at_twilio.popleft(), self.now)
            self.do(did)
            assert did or self.core.next_but_gap() >= min(before, self.core.after_mark)

    def says(self, what: str) -> None:
        more: dict[str, vapi.Message] = {"starts": vapi.AgentStarted(), "stops": vapi.AgentStopped()}
        self.do(self.core.vapi_said({**SAYS, **more}[what], self.now))

    def does(self, what: str) -> None:
        core, now = self.core, self.now
        ways: dict[str, Callable[[], list[Action]]] = {
            "connects": lambda: core.agent_connected(now),
            "lost": lambda: core.agent_lost(now),
            "anew": lambda: core.agent_asked_anew(now),
            "flush": lambda: core.flush(now),
            "hand over": lambda: core.hand_over_now(now),
            "hand on": lambda: core.hand_on(now),
            "leave": lambda: core.leave_after_last_word("handed-over", now),
            "leave now": lambda: core.leave_after_last_word("handed-over", now, wait_for_sentence=False),
            "ticks": lambda: core.tick(now),
            "key": lambda: core.key_pressed("0", now),
        }
        self.do(ways[what]())

    def happens(self, event: Event) -> None:
        what, how = event
        getattr(self, what)(how)


def spelled_out(relayed: Relayed) -> list[Action]:
    """What went the short way, as the long way says it."""
    before, mark, behind = relayed
    said: list[Action] = [ToCaller(before)] if before else []
    said += [MarkCaller(mark)] if mark else []
    return said + ([ToCaller(behind)] if behind else [])


def remembered(thing: Any) -> Any:
    """All there is in it, as plain values."""
    if isinstance(thing, dict):
        return {key: remembered(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | deque):
        return [remembered(each) for each in thing]
    if not type(thing).__module__.startswith("bridge."):
        return thing
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())] + list(getattr(thing, "__dict__", ()))
    return {name: remembered(getattr(thing, name)) for name in names if hasattr(thing, name)}


RULES = st.builds(Rules, instant=st.booleans(), greeting_interruptible=st.booleans(), agent_speaks_first=st.booleans())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(RULES, st.lists(EVENTS, min_size=10, max_size=40))
@example(Rules(), [("does", "connects"), ("speech", 3)])
@example(Rules(), [("does", "leave"), ("speech", 3)])
def test_the_short_ways_do_and_remember_what_the_long_ways_do(rules: Rules, events: list[Event]) -> None:
    short, long = OneCall(rules, short=True), OneCall(rules, short=False)
    for event in [("says", "starts"), ("speech", 24), *events]:
        short.happens(event)
        long.happens(event)
        assert short.did == long.did
        assert remembered(short.core) == remembered(long.core)


def test_nearly_all_sound_of_a_call_goes_the_short_ways() -> None:
    call = OneCall(Rules(), short=True)
    call.says("starts")
    for _ in range(100):
        call.sound(371)
        call.caller(160)
        call.passes(0.046)
        call.marks(1)
    assert call.shortened >= 175


VOICE = st.tuples(
    st.sampled_from(["sound", "sound", "sound", "pause", "resume", "cut", "drop", "end", "pace", "mark"]),
    st.sampled_from([0.0, 0.02, 0.046, 0.2]),
    st.sampled_from([1, 159, 160, 371, 743, 4000]),
)


def voice_does(voice: AgentVoice, what: str, size: int, now: float) -> Any:
    match what:
        case "sound":
            return voice.add(bytes(size), now)
        case "resume":
            return voice.resume(now)
        case "cut":
            return voice.cut(now)
        case "end":
            return voice.end_turn(now)
        case "pace":
            return voice.pace(now)
        case "mark":
            return voice.mark_returned(f"{voice.generation}:{ms(voice._marks[0]) if voice._marks else 0}", now)
    return voice.pause() if what == "pause" else voice.drop()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(VOICE, min_size=10, max_size=40))
def test_a_voice_that_relays_is_the_voice_that_adds(events: list[tuple[str, float, int]]) -> None:
    short, long, now = AgentVoice(), AgentVoice(), 100.0
    for what, seconds, size in [("sound", 0.046, 1000)] * 2 + events:
        now += seconds
        relayed = short.relay(bytes(size), now) if what == "sound" else None
        did = voice_does(short, what, size, now) if relayed is None else spelled_out(relayed)
        assert did == voice_does(long, what, size, now)
        assert remembered(short) == remembered(long)
