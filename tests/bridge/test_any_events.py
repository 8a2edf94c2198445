"""The core between a telephone and a vendor that do whatever they like, in any order, and a process that sleeps too long or is to leave.

The telephone is the sandbox's playout model: it keeps what it is sent, plays it by the clock, and returns marks, or loses them.
Sound of the agent's carries the number of its turn in every byte, so what is played can be told from what was cut, also on the
stream that comes after one that broke.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave, Noted, ToAgent
from bridge.audio import BYTES_PER_S, FRAME_BYTES
from bridge.core import BridgeCore
from bridge.lateness import HELD_BACK_MOST_S
from bridge.pulse import PROBE
from bridge.rules import Rules
from bridge.sandbox.playout import Playout
from bridge.voice import FlushCaller, MarkCaller, ToCaller
from tests.bridge.test_core import CLIPS

LEAD_S, FRAME_S = HELD_BACK_MOST_S, 0.02  # a network that is even allows less
SILENT_S = 2.0  # three looks at nothing
WAITS_MOST_S = HELD_BACK_MOST_S + 2 * Rules().confirm  # a cushion, and an "mhm" before it is there and after
HELD_MOST = 62 * BYTES_PER_S  # a minute, and what a clear takes back
OURS = {clip.ulaw[0] for clip in CLIPS.values()}
TURNS = [number for number in range(64, 250) if number not in OURS]
SAYS: dict[str, vapi.Message] = {
    "caller spoke": vapi.CallerSpoke(),
    "caller paused": vapi.CallerPaused(),
    "interrupted": vapi.CallerInterrupted(),
    "partial": vapi.PartialHeard("user", "what about"),
    "final": vapi.FinalHeard("user", "what about my account"),
    "agent's line": vapi.FinalHeard("assistant", "I am looking at it now"),
    "tool": vapi.ToolsCalled(),
    "forced": vapi.WordsSpoken("force-say", {}),
    "words": vapi.WordsSpoken("model", {"type": "word-alignment", "words": ["so"], "wordsStartTimesMs": [0], "wordsEndTimesMs": [90]}),
    "queued": vapi.ResponseQueued("turn"),
}


class AnyCall(RuleBasedStateMachine):
    """One call. Nothing is assumed of the order of events but that sound of a cut turn comes within a second, before news of the next."""

    @initialize(
        instant=st.booleans(),
        greeting=st.booleans(),
        first=st.booleans(),
        tell=st.booleans(),
        longest=st.sampled_from([0, 20]),
        on=st.booleans(),
        digits=st.sampled_from([0, 1, 4]),
    )
    def begins(self, instant: bool, greeting: bool, first: bool, tell: bool, longest: float, on: bool, digits: int) -> None:
        self.times = Rules(
            instant=instant,
            greeting_interruptible=greeting,
            agent_speaks_first=first,
            tell_heard=tell,
            longest=longest,
            goes_on=on,
            keypad_digits=digits,
        )
        self.now = 100.0
        self.turn = 0
        self.cut: set[int] = set()
        self.sounded = False
        self.sound_at = self.now
        self.loses_marks = False
        self.cut_at, self.gap_since_cut = self.now, False
        self.tells_of_turns = False
        self.stream_opens()

    def stream_opens(self) -> None:
        self.core = BridgeCore(self.times, clips=CLIPS, now=self.now)
        self.phone = Playout(self.now)
        self.left: Leave | None = None
        self.on_its_way: dict[bool, float] = {}  # since when, elsewhere or (True) for good
        self.gone_bytes = 0
        self.waits_since: float | None = None

    # -- what the core asks for

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller(ulaw):
                    assert not self.cut & set(ulaw), "sound of a turn that was cut"
                    self.phone.play(ulaw, self.now)
                case MarkCaller(name):
                    self.phone.mark(name, self.now)
                case FlushCaller():
                    self.marks_back(list(self.phone.clear(self.now).marks))
                case Noted("tts-buffer-flushed") if self.sounded:
                    self.cut.add(TURNS[self.turn])
                    self.cut_at = self.now
                case AskForAgent():
                    self.next_turn()
                case ToAgent(ulaw):
                    assert len(ulaw) <= Rules().backlog_limit
                case Leave() as left:
                    assert self.left is None, "a call is left once"
                    self.left = left

    def next_turn(self) -> None:
        """What sounds from now on is no part of what was."""
        self.turn, self.sounded = min(self.turn + 1, len(TURNS) - 1), False

    def marks_back(self, names: list[str]) -> None:
        for name in names:
            if not self.loses_marks or name == PROBE:
                self.do(self.core.mark_returned(name, self.now))

    # -- time

    @rule(seconds=st.sampled_from([0.02, 0.1, 0.35, 0.7, 2.0, 5.0]))
    def passes(self, seconds: float) -> None:
        """Time goes by and the process is there at each deadline."""
        until = self.now + seconds
        while (at := self.core.next_deadline()) is not None and at <= until:
            self.now = max(self.now, at)
            self.wakes()
        self.now = until
        self.wakes()

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def sleeps(self, seconds: float) -> None:
        """The process is not there for a while, and then finds everything due at once."""
        self.now += seconds
        self.wakes()

    def wakes(self) -> None:
        self.marks_back(self.phone.due(self.now))
        self.do(self.core.tick(self.now))
        self.marks_back(self.phone.due(self.now))  # a probe comes back at once
        at = self.core.next_deadline()
        assert at is None or at > self.now, "a deadline is still in the past"
        assert (at is None) == (self.left is not None), "waits for nothing, and is not over"
        voice = self.core._voice
        if self.left is None and voice._filling_since is not None and voice.held_bytes >= FRAME_BYTES and not voice._paused:
            assert self.now < voice._filling_since + HELD_BACK_MOST_S, "held back too long"
        self.what_is_held_is_sent_or_dropped_within_its_bound()

    # -- the vendor

    @rule(says=st.sampled_from(sorted(SAYS)))
    def vapi_says(self, says: str) -> None:
        self.do(self.core.vapi_said(SAYS[says], self.now))
        if says == "queued" and TURNS[self.turn] in self.cut:
            self.next_turn()

    @rule()
    def the_webhook_tells_that_the_caller_speaks(self) -> None:
        self.do(self.core.speech_hinted(self.now))

    @precondition(lambda self: self.now - self.sound_at >= SILENT_S)
    @rule()
    def nothing_comes_of_vapi(self) -> None:
        self.do(self.core.agent_unreachable(self.now))

    @precondition(lambda self: self.turn < len(TURNS) - 1)
    @rule()
    def a_turn_starts(self) -> None:
        self.next_turn()
        self.tells_of_turns = True
        self.do(self.core.vapi_said(vapi.AgentStarted(), self.now))

    @precondition(lambda self: self.turn < len(TURNS) - 1)
    @rule()
    def a_turn_stops(self) -> None:
        self.do(self.core.vapi_said(vapi.AgentStopped(), self.now))

    @precondition(lambda self: self.turn < len(TURNS) - 1)
    @rule(size=st.sampled_from([1, 170, 371, 743, 8000, 48_000]))
    def sound(self, size: int) -> None:
        self.looks_for_a_gap()
        self.sound_at, self.sounded = self.now, True
        self.do(self.core.agent_audio(bytes([TURNS[self.turn]]) * size, self.now))

    @precondition(lambda self: self.turn < len(TURNS) - 2)
    @rule()
    def a_turn_is_cut(self) -> None:
        self.a_turn_starts()
        self.sound(8000)
        self.vapi_says("caller spoke")
        self.vapi_says("interrupted")

    @precondition(lambda self: self.turn < len(TURNS) - 3)
    @rule(waits=st.sampled_from([0.1, 0.35]))
    def a_clip_falls_due_while_sound_is_held(self, waits: float) -> None:
        """An agent is lost in the middle of a sentence, the next one says nothing yet, and the caller does."""
        self.a_turn_starts()
        self.sound(48_000)
        self.agent_goes("lost")
        self.agent_connects()
        self.passes(0.7)
        self.vapi_says("caller spoke")
        self.passes(waits)

    def looks_for_a_gap(self) -> None:
        gap = self.now - self.sound_at >= Rules().new_turn_after_gap
        self.gap_since_cut = TURNS[self.turn] in self.cut and (gap or self.gap_since_cut)
        if self.gap_since_cut and not (self.tells_of_turns and self.now < self.cut_at + Rules().turn_told_within):
            self.next_turn()  # one that nobody announced

    @rule()
    def agent_connects(self) -> None:
        self.do(self.core.agent_connected(self.now))

    @rule(how=st.sampled_from(["lost", "none", "no other", "ended"]))
    def agent_goes(self, how: str) -> None:
        match how:
            case "ended":
                self.do(self.core.vapi_said(vapi.SessionEnded("x"), self.now))
            case "lost":
                self.do(self.core.agent_lost(self.now))
            case "no other":
                self.do(self.core.no_other_agent(self.now))
            case _:
                self.do(self.core.no_agent(self.now))
        self.next_turn()  # it is another one's

    @rule()
    def the_agent_is_asked_for_anew(self) -> None:
        if not self.core._caller.has_agent:
            self.next_turn()  # what comes is another one's
        self.do(self.core.agent_asked_anew(self.now))

    # -- the caller and the house

    @rule()
    def caller_sounds(self) -> None:
        self.do(self.core.caller_audio(b"\x11" * 160, self.now))

    @rule(key=st.sampled_from("015*#"))
    def a_key(self, key: str) -> None:
        self.do(self.core.key_pressed(key, self.now))

    @rule(waits=st.booleans())
    def is_led_away(self, waits: bool) -> None:
        self.do(self.core.leave_after_last_word("handed-over", self.now, wait_for_sentence=waits))

    @rule(how=st.sampled_from(["at once", "silence"]))
    def somebody_above(self, how: str) -> None:
        self.do(self.core.hand_over_now(self.now) if how == "at once" else self.core.flush(self.now))

    @precondition(lambda self: self.turn < len(TURNS) - 2)
    @rule(in_a_sentence=st.booleans(), later=st.sampled_from([0.0, 25.0]))
    def the_process_is_to_leave(self, in_a_sentence: bool, later: float) -> None:
        if in_a_sentence:
            self.a_turn_starts()
            self.sound(8000)
        self.do(self.core.hand_on(self.now))
        self.is_out_within_the_bound_of_a_last_word()
        self.passes(later)

    @rule()
    def marks_get_lost(self) -> None:
        self.loses_marks = True

    # -- streams end, and others come

    @rule(agent_is_there=st.booleans())
    def the_caller_hangs_up(self, agent_is_there: bool) -> None:
        """And somebody else calls."""
        self.do(self.core.caller_left(self.now))
        self.is_over()
        self.next_turn()
        self.stream_opens()
        if agent_is_there:
            self.agent_connects()

    @precondition(lambda self: self.left is None and self.turn < len(TURNS) - 6)
    @rule(
        after_a_cut=st.booleans(),
        gap_s=st.sampled_from([0.0, 0.2, 4.0]),
        meanwhile=st.lists(st.sampled_from(["sound", "stops", "starts"]), max_size=3),
    )
    def the_stream_breaks(self, after_a_cut: bool, gap_s: float, meanwhile: list[str]) -> None:
        """Its agent, if there is one to stay, goes on with the next stream. What it says meanwhile is heard there."""
        if after_a_cut:
            if not self.core._way_out.is_moving:
                self.agent_connects()
            self.a_turn_is_cut()
        self.looks_for_a_gap()
        self.do(self.core.stream_lost("stream-lost", self.now))
        self.is_over()
        left_off = self.core.left_off
        self.stream_opens()
        if left_off is None:
            self.next_turn()
            return
        sound_at, self.sound_at = self.sound_at, self.now + gap_s  # all it said meanwhile may be of the same turn
        self.now += gap_s
        self.do(self.core.take_up(left_off, self.now))
        for what in meanwhile:
            {"sound": lambda: self.sound(1600), "stops": self.a_turn_stops, "starts": self.a_turn_starts}[what]()
        self.sound_at = sound_at

    def is_over(self) -> None:
        assert self.left is not None
        assert self.core.next_deadline() is None
        assert self.core.tick(self.now + 100) == []

    # -- what holds whatever happens

    @invariant()
    def holds_no_more_than_its_bound(self) -> None:
        if hasattr(self, "core"):
            assert self.core._voice.held_bytes <= HELD_MOST
            assert len(self.core._caller._backlog) <= Rules().backlog_limit
            at_twilio = self.phone.play(b"", self.now) - self.now
            assert at_twilio <= LEAD_S + FRAME_S + 1e-6

    @invariant()
    def what_is_held_is_sent_or_dropped_within_its_bound(self) -> None:
        """Less than a frame waits for the rest of its turn."""
        if not hasattr(self, "core") or self.left is not None:
            return
        voice = self.core._voice
        gone_bytes = voice.sent_bytes + voice.let_go_bytes
        if voice.held_bytes < FRAME_BYTES:
            self.waits_since = None
        elif self.waits_since is None or gone_bytes != self.gone_bytes:
            self.waits_since = self.now
        self.gone_bytes = gone_bytes
        assert self.waits_since is None or self.now < self.waits_since + WAITS_MOST_S, "held for ever"

    @invariant()
    def is_out_within_the_bound_of_a_last_word(self) -> None:
        if hasattr(self, "core") and self.left is None and (self.core._way_out.is_moving or self.core._is_leaving):
            since = self.on_its_way.setdefault(self.core._is_leaving, self.now)
            assert self.now < since + self.times.drain_within

    def teardown(self) -> None:
        """Whatever went before, a call that is being left ends, within its bounds; and one that is over asks for nothing."""
        if not hasattr(self, "core"):
            return
        self.do(self.core.agent_lost(self.now))
        self.do(self.core.no_other_agent(self.now))
        deadline = self.now + Rules().drain_within + 1.0
        while self.left is None and (at := self.core.next_deadline()) is not None:
            assert at <= deadline, "nobody is kept longer than that"
            self.now = max(self.now, at)
            self.wakes()
        self.is_over()


TestAnyCall = AnyCall.TestCase
TestAnyCall.settings = settings(max_examples=300, stateful_step_count=50, deadline=None, derandomize=True)
