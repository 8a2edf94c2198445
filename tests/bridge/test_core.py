"""The core's promises. Time is a number; a call is a core and the list of what it did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise, product
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, AskForPerson, Leave, Noted, ToAgent
from bridge.audio import Clip, ms
from bridge.core import BridgeCore
from bridge.pulse import PROBE
from bridge.rules import Rules
from bridge.tone import TONE
from bridge.voice import FlushCaller, MarkCaller, ToCaller

CLIPS = {
    "one_moment": Clip("One moment.", b"\x10" * 1600),
    "trouble": Clip("Please hold.", b"\x30" * 1600),
    "connecting_colleague": Clip("A colleague.", b"\x20" * 3200),
}
LATE_S = 1.5
CHUNKS = (743, 371, 186, 557, 170, 185, 372, 558)  # what Vapi was seen to send


def a_call(**rules: object) -> BridgeCore:
    core = BridgeCore(Rules(**rules), clips=CLIPS, now=0.0)  # type: ignore[arg-type]
    core.agent_connected(0.0)
    return core


def agent_is_speaking(core: BridgeCore, *, ms: int, at: float = 0.0) -> list[Action]:
    out = core.vapi_said(vapi.AgentStarted(), at)
    return out + core.agent_audio(b"\x55" * (ms * 8), at)


def played(actions: Sequence[Action]) -> bytes:
    return b"".join(action.ulaw for action in actions if isinstance(action, ToCaller))


def clears(actions: Sequence[Action]) -> int:
    return sum(isinstance(action, FlushCaller) for action in actions)


def noted(actions: Sequence[Action], kind: str) -> list[Noted]:
    return [action for action in actions if isinstance(action, Noted) and action.kind == kind]


def run_until(core: BridgeCore, until: float, out: list[Action]) -> None:
    """Let time pass for a core whose Twilio is there: it answers when it is asked whether it is, and is late with other marks."""
    voice = core._voice
    while (at := core.next_deadline()) is not None and at <= until:
        while (due := voice.mark_due()) is not None and due + LATE_S <= at:
            out += core.mark_returned(f"{voice.generation}:{ms(voice._marks[0]) if voice._marks else 0}", at)
        step = core.tick(at)
        out += step
        if MarkCaller(PROBE) in step:
            out += core.mark_returned(PROBE, at)


def test_caller_interrupts_and_unheard_speech_is_flushed() -> None:
    core = a_call()
    agent_is_speaking(core, ms=340)
    out = core.vapi_said(vapi.CallerSpoke(), 0.0)
    assert clears(out) == 1
    out = core.vapi_said(vapi.CallerInterrupted(), 0.2)
    assert clears(out) == 0
    assert noted(out, "tts-buffer-flushed")[0].detail["cancelled_ms"] == 340


def test_at_most_the_lead_is_sent_ahead_of_the_ear() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=2000)
    assert len(played(out)) == 300 * 8
    run_until(core, 1.0, out)
    assert 1000 * 8 <= len(played(out)) <= 1300 * 8


def test_no_timer_runs_for_the_voice_while_nothing_is_held() -> None:
    core = a_call()
    agent_is_speaking(core, ms=200)
    core.caller_audio(b"\xff" * 160, 0.0)
    assert core.next_deadline() == pytest.approx(0.06)  # only the gap filler of the uplink


@given(st.lists(st.tuples(st.sampled_from(CHUNKS), st.sampled_from([0.0, 0.05, 0.1])), min_size=1, max_size=60), st.integers(0, 2**32))
def test_the_caller_gets_the_agents_bytes_exactly(chunks_and_gaps: list[tuple[int, float]], seed: int) -> None:
    core = a_call()
    out = core.vapi_said(vapi.AgentStarted(), 0.0)
    sent, now, rng = b"", 0.0, Random(seed)
    for size, gap in chunks_and_gaps:
        chunk = rng.randbytes(size)
        sent += chunk
        run_until(core, now, out)
        out += core.agent_audio(chunk, now)
        now += gap
    out += core.vapi_said(vapi.AgentStopped(), now)
    run_until(core, now + 8, out)
    assert played(out) == sent
    chunks = [a.ulaw for a in out if isinstance(a, ToCaller)]
    assert all(len(chunk) % 160 == 0 for chunk in chunks[:-1])


def test_an_ear_that_ran_dry_gets_a_cushion_first_so_that_odd_gaps_are_not_heard() -> None:
    core = a_call()
    out = core.vapi_said(vapi.AgentStarted(), 0.0)
    out += core.agent_audio(b"\x55" * 371, 0.0)
    assert played(out) == b""
    run_until(core, 0.05, out)
    out += core.agent_audio(b"\x55" * 372, 0.05)
    assert played(out) == b""
    out += core.agent_audio(b"\x55" * 372, 0.1)
    assert played(out) == b"\x55" * 960


def test_a_short_sound_waits_for_its_cushion_a_quarter_of_a_second_at_most() -> None:
    core = a_call()
    out = core.vapi_said(vapi.AgentStarted(), 0.0)
    out += core.agent_audio(b"\x55" * 320, 0.0)
    run_until(core, 0.25, out)
    assert played(out) == b"\x55" * 320


def test_marks_come_every_200_ms_and_at_the_end_of_a_turn() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=450)
    out += core.vapi_said(vapi.AgentStopped(), 0.0)
    run_until(core, 1.0, out)
    assert [a.name for a in out if isinstance(a, MarkCaller)] == ["0:200", "0:400", "0:450"]


@pytest.mark.parametrize("sources", ["".join(each) for each in product("siw", repeat=6)])
def test_one_clear_per_interruption_whatever_the_source(sources: str) -> None:
    """Evidence at 0, 0, 100, 430, 570, 1150 ms while the agent talks on: clears at 0, 570 and 1150. `w`: the webhook's word of speech."""
    core = a_call()
    agent_is_speaking(core, ms=10_000)
    at_ms, cleared = (0, 0, 100, 430, 570, 1150), []
    for at, source in zip(at_ms, sources, strict=True):
        now = at / 1000
        out: list[Action] = []
        run_until(core, now, out)
        out += core.vapi_said(vapi.AgentStarted(), now)
        out += core.agent_audio(b"\x55" * 8000, now)
        if source == "w":
            out += core.speech_hinted(now)
        else:
            out += core.vapi_said(vapi.CallerSpoke() if source == "s" else vapi.CallerInterrupted(), now)
        cleared += [at] * clears(out)
    assert cleared == [0, 570, 1150]


def test_an_mhm_is_dismissed_and_the_agent_goes_on_where_it_was_heard_last() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=1000)
    out += core.mark_returned("0:200", 0.2)
    before = len(played(out))
    out = core.vapi_said(vapi.CallerSpoke(), 0.25)
    assert clears(out) == 1
    out = []
    run_until(core, 5.0, out)
    assert noted(out, "interruption-dismissed")
    assert before - 200 * 8 + len(played(out)) == 1000 * 8 - 200 * 8 + (before - 200 * 8)


def test_what_the_caller_has_not_heard_is_played_again_byte_for_byte() -> None:
    core = a_call()
    audio = bytes(i * 7 % 251 for i in range(8000))
    core.vapi_said(vapi.AgentStarted(), 0.0)
    first = played(core.agent_audio(audio, 0.0))
    core.mark_returned("0:200", 0.2)
    core.vapi_said(vapi.CallerSpoke(), 0.25)
    out: list[Action] = []
    run_until(core, 5.0, out)
    assert first[:1600] + played(out) == audio


def test_confirm_mode_lets_the_tail_play_and_clears_only_when_confirmed() -> None:
    core = a_call(instant=False)
    agent_is_speaking(core, ms=1000)
    assert clears(core.vapi_said(vapi.CallerSpoke(), 0.1)) == 0
    out = core.vapi_said(vapi.CallerInterrupted(), 0.2)
    assert clears(out) == 1
    assert noted(out, "tts-buffer-flushed")[0].detail["cancelled_ms"] == 800


def test_the_end_of_the_agents_turn_confirms_an_interruption() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    out = core.vapi_said(vapi.AgentStopped(), 0.3)
    assert noted(out, "interruption-confirmed")


def test_sound_of_the_interrupted_turn_is_dropped_until_the_next_turn_starts() -> None:
    core = a_call()
    agent_is_speaking(core, ms=500)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    core.agent_audio(b"\x55" * 743, 0.21)
    assert played(core.agent_audio(b"\x55" * 743, 0.25)) == b""
    core.vapi_said(vapi.AgentStopped(), 0.26)
    core.vapi_said(vapi.AgentStarted(), 1.2)
    assert played(core.agent_audio(b"\x66" * 1120, 1.3)) == b"\x66" * 1120


@pytest.mark.parametrize("stalls_s", [0.3, 0.41, 0.75])
def test_sound_of_a_cut_turn_that_waited_in_a_stalled_socket_is_dropped(stalls_s: float) -> None:
    """The webhook tells of the interruption first, the socket only behind the sound."""
    core = a_call()
    agent_is_speaking(core, ms=500)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    for n in range(3):
        assert played(core.agent_audio(b"\x55" * 1120, stalls_s + n * 0.001)) == b""
    core.vapi_said(vapi.CallerInterrupted(), stalls_s + 0.01)
    core.vapi_said(vapi.AgentStarted(), stalls_s + 0.02)
    assert played(core.agent_audio(b"\x66" * 1120, stalls_s + 0.03)) == b"\x66" * 1120


def test_a_turn_nobody_announced_is_heard_after_a_second_all_the_same() -> None:
    core = a_call()
    agent_is_speaking(core, ms=500)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    out: list[Action] = []
    for n in range(60):
        out += core.agent_audio(b"\x66" * 400, 0.9 + n * 0.05)
    assert len(played(out)) >= (60 - 6) * 400 - 160


def test_of_a_vendor_that_announces_no_turns_the_next_one_is_known_by_its_gap() -> None:
    core = a_call()
    core.agent_audio(b"\x55" * 4000, 0.0)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    assert played(core.agent_audio(b"\x66" * 1120, 0.6)) == b"\x66" * 1120


def test_a_turn_that_the_model_has_begun_is_announced() -> None:
    core = a_call()
    agent_is_speaking(core, ms=500)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    core.vapi_said(vapi.ResponseQueued("next"), 0.5)
    assert played(core.agent_audio(b"\x66" * 1120, 0.6)) == b"\x66" * 1120


def test_interruption_clears_twilio_even_when_our_queue_is_empty() -> None:
    core = a_call()
    assert clears(core.vapi_said(vapi.CallerInterrupted(), 9.0)) == 1


def test_marks_that_return_because_of_a_clear_are_not_taken_for_sound_that_was_heard() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    core.mark_returned("0:200", 0.11)
    out = core.vapi_said(vapi.CallerInterrupted(), 0.2)
    assert noted(out, "tts-buffer-flushed")[0].detail["cancelled_ms"] == 900


def test_time_to_silence_runs_from_the_callers_speech_to_the_mark_behind_the_clear() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.100)
    core.mark_returned("0:200", 0.110)  # it was on its way when the clear was sent
    assert core.figures()["time_to_silence_ms"] == []
    core.mark_returned("1:0", 0.130)
    assert core.figures()["time_to_silence_ms"] == [pytest.approx(30, abs=1)]


def test_the_greeting_is_heard_when_its_own_sound_is_and_not_with_the_clip_before_it() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    out: list[Action] = core.tick(0.9)  # "one moment", 200 ms of it
    out += core.agent_connected(0.95) + agent_is_speaking(core, ms=500, at=0.95) + core.vapi_said(vapi.AgentStopped(), 0.96)
    names = [action.name for action in out if isinstance(action, MarkCaller)]
    assert names[0] == "0:200"
    assert noted(core.mark_returned("0:200", 1.1), "greeting-heard") == []
    assert MarkCaller("0:400") in core.tick(1.1)
    assert noted(core.mark_returned("0:400", 1.3), "greeting-heard")[0].detail == {"ms": 1300}


def test_a_key_that_cuts_the_agent_short_is_no_interruption() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    assert clears(core.hand_over_now(0.3)) == 1
    assert core.figures()["interruptions"] == 0


def test_time_to_silence_of_an_interruption_is_not_counted_from_the_one_before_it() -> None:
    """The second one is so soon after the first that it gets no clear of its own; the third begins with Vapi's word of it."""
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerInterrupted(), 0.1)
    core.mark_returned("1:0", 0.12)
    agent_is_speaking(core, ms=1000, at=0.3)
    core.vapi_said(vapi.CallerSpoke(), 0.4)
    core.vapi_said(vapi.CallerInterrupted(), 0.5)
    agent_is_speaking(core, ms=1000, at=2.0)
    core.vapi_said(vapi.CallerInterrupted(), 2.3)
    core.mark_returned("2:0", 2.32)
    assert core.figures()["time_to_silence_ms"] == [pytest.approx(20, abs=1)] * 2


def test_the_last_word_is_heard_before_the_call_is_left() -> None:
    core = a_call()
    agent_is_speaking(core, ms=400)
    out = core.vapi_said(vapi.AgentStopped(), 0.0)
    out += core.vapi_said(vapi.SessionEnded("assistant-ended-call"), 0.01)
    run_until(core, 0.35, out)
    assert not any(isinstance(a, Leave) for a in out)
    core.mark_returned("0:200", 0.2)
    assert core.mark_returned("0:400", 0.41) == [Leave("agent-ended", "assistant-ended-call")]


def test_a_last_mark_that_never_returns_keeps_the_caller_one_second_at_most() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=400)
    out += core.vapi_said(vapi.AgentStopped(), 0.0)
    out += core.vapi_said(vapi.SessionEnded("x"), 0.01)
    run_until(core, 1.5, out)
    assert out[-1] == Leave("agent-ended", "x")


def test_a_goodbye_is_not_interrupted() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.leave_after_last_word("handed-over", 0.0)
    assert clears(core.vapi_said(vapi.CallerSpoke(), 0.1)) == 0
    assert core.vapi_said(vapi.CallerInterrupted(), 0.2) == []


def test_a_greeting_that_may_not_be_interrupted_is_not() -> None:
    core = a_call(greeting_interruptible=False)
    agent_is_speaking(core, ms=1000)
    assert clears(core.vapi_said(vapi.CallerInterrupted(), 0.1)) == 0
    core.vapi_said(vapi.AgentStopped(), 0.2)
    assert clears(core.vapi_said(vapi.CallerSpoke(), 0.3)) == 0  # sent, but not heard yet
    run_until(core, 2.5, [])
    core.mark_returned("0:1000", 2.5)
    agent_is_speaking(core, ms=1000, at=2.5)
    assert clears(core.vapi_said(vapi.CallerInterrupted(), 2.6)) == 1


def test_what_the_caller_says_before_the_agent_is_there_is_kept_and_bounded() -> None:
    core = BridgeCore(Rules(backlog_limit=480), clips=CLIPS, now=0.0)
    for n in range(5):
        assert core.caller_audio(bytes([n]) * 160, n * 0.02) == []
    assert core.agent_connected(0.2) == [ToAgent(b"\x02" * 160 + b"\x03" * 160 + b"\x04" * 160)]
    assert core.figures()["audio"]["from_caller_dropped"] == 320


def test_gaps_of_the_caller_are_filled_with_silence_every_20_ms() -> None:
    core = a_call()
    core.caller_audio(b"\x11" * 160, 1.0)
    out: list[Action] = []
    run_until(core, 1.17, out)
    assert [len(a.ulaw) for a in out if isinstance(a, ToAgent)] == [160] * 6
    assert all(a.ulaw == b"\xff" * 160 for a in out if isinstance(a, ToAgent))


@pytest.mark.parametrize(("late_s", "frames"), [(0.0, 1), (0.015, 1), (0.03, 2), (0.055, 3), (3.0, 1)])
def test_a_gap_looked_at_late_is_made_up_for_unless_the_process_slept_as_the_callers_own_sound_did(late_s: float, frames: int) -> None:
    core = a_call()
    core.caller_audio(b"\x11" * 160, 1.0)
    out = [action for action in core.tick(1.06 + late_s) if isinstance(action, ToAgent)]
    assert [action.ulaw for action in out] == [b"\xff" * 160] * frames


def test_a_caller_hears_a_sentence_within_a_second_when_no_agent_comes() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    out: list[Action] = []
    run_until(core, 0.95, out)
    assert played(out).startswith(CLIPS["one_moment"].ulaw)


def test_without_a_vapi_session_the_caller_is_told_and_then_handed_on() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    out = core.no_agent(0.3, raw="refused")
    assert played(out)[:160] == CLIPS["connecting_colleague"].ulaw[:160]
    run_until(core, 3.0, out)
    assert out[-1] == Leave("no-agent", "refused")


def test_nobody_waits_for_ever_for_an_agent() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    out: list[Action] = []
    run_until(core, 10.0, out)
    assert isinstance(out[-1], Leave)
    assert out[-1].why == "no-agent"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("audio"), st.integers(1, 2000)),
            st.tuples(st.sampled_from(["started", "stopped", "spoke", "interrupted", "paused", "caller", "tick"]), st.just(0)),
            st.tuples(st.just("mark"), st.integers(0, 3000)),
        ),
        max_size=120,
    ),
    st.booleans(),
)
@example([("audio", 2000), ("tick", 0), ("tick", 0), ("spoke", 0), ("interrupted", 0)], True)
@example([("audio", 2000), ("tick", 0), ("tick", 0), ("spoke", 0), *[("tick", 0)] * 20, ("started", 0), ("audio", 900)], True)
def test_whatever_happens_every_byte_is_accounted_for_and_two_clears_are_half_a_second_apart(
    story: list[tuple[str, int]], instant: bool
) -> None:
    core, now, got = a_call(instant=instant), 0.0, 0
    out: list[Action] = []
    cleared: list[float] = []
    says = {
        "started": vapi.AgentStarted(),
        "stopped": vapi.AgentStopped(),
        "spoke": vapi.CallerSpoke(),
        "interrupted": vapi.CallerInterrupted(),
        "paused": vapi.CallerPaused(),
    }
    for what, n in story:
        now += 0.037
        run_until(core, now, out)
        step: list[Action] = []
        if what == "audio":
            got += n
            step = core.agent_audio(b"\x55" * n, now)
        elif what == "mark":
            step = core.mark_returned(f"{len(cleared)}:{n}", now)
        elif what == "caller":
            step = core.caller_audio(b"\x11" * 160, now)
        elif what != "tick":
            step = core.vapi_said(says[what], now)  # type: ignore[arg-type]
        cleared += [now] * clears(step)
        out += step
    audio, held = core.figures()["audio"], core._voice.held_bytes
    assert (audio["from_agent"], audio["to_caller"]) == (got, len(played(out)))
    came = audio["from_agent"] + audio["clips"] + audio["to_caller_taken_back"] + audio["to_caller_repeated"]
    assert came == audio["to_caller"] + audio["to_caller_left_out"] + audio["from_agent_let_go"] + audio["from_agent_dropped"] + held
    assert audio["to_caller_taken_back"] <= len(cleared) * 2 * 8000  # of each clear at most the kept tail
    assert all(b - a >= 0.5 for a, b in pairwise(cleared))


def test_vapi_lost_while_the_caller_speaks_over_the_agent_is_still_explained_at_once() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    out = core.agent_lost(0.2, raw="broke")
    assert AskForAgent("broke") in out
    out += core.no_other_agent(0.3)
    run_until(core, 4.0, out)
    assert CLIPS["one_moment"].ulaw[:160] in played(out)
    assert CLIPS["connecting_colleague"].ulaw[:160] in played(out)
    assert out[-1] == Leave("agent-lost")


def test_another_agent_goes_on_where_one_was_lost_and_hears_what_the_caller_said_meanwhile() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    out = core.agent_lost(0.2)
    said = b"\x11" * 160
    assert [action for action in core.caller_audio(said, 0.3) if isinstance(action, ToAgent)] == []
    out = core.agent_connected(0.9)
    assert ToAgent(said) in out
    out = core.agent_audio(b"\x55" * 8000, 1.6)
    run_until(core, 9.0, out)
    assert b"\x55" * 160 in played(out)
    assert not [action for action in out if isinstance(action, Leave)]


def test_when_no_other_agent_makes_a_sound_within_five_seconds_the_ladder_leads_down() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    out = core.agent_lost(0.2)
    run_until(core, 10.0, out)
    assert out[-1] == Leave("no-agent", "no sound of an agent in time")


def test_an_agent_that_is_there_and_makes_no_sound_within_five_seconds_is_replaced() -> None:
    core, out = a_call(), list[Action]()
    run_until(core, 4.9, out)
    assert not any(isinstance(action, AskForAgent) for action in out)
    run_until(core, 5.1, out)
    assert out.count(AskForAgent("no sound of an agent in time")) == 1
    out += core.agent_connected(6.0) + agent_is_speaking(core, ms=500, at=6.5)
    run_until(core, 12.0, out)
    assert not any(isinstance(action, Leave) for action in out)


@pytest.mark.parametrize("last_news", ["lost", "ended"])
def test_an_agent_that_is_gone_mid_sentence_keeps_nobody_waiting_for_its_last_word(last_news: str) -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=300)
    core.leave_after_last_word("handed-over", 0.1)
    out = core.agent_lost(0.2) if last_news == "lost" else core.vapi_said(vapi.SessionEnded("x"), 0.2)
    run_until(core, 1.6, out)
    assert out[-1] == Leave("handed-over")


def test_a_crumb_of_sound_after_the_end_of_a_turn_does_not_delay_the_way_out() -> None:
    core = a_call()
    out = agent_is_speaking(core, ms=300)
    core.leave_after_last_word("handed-over", 0.1)
    out = core.vapi_said(vapi.AgentStopped(), 0.3)
    out += core.agent_audio(b"\x55" * 250, 0.32)
    run_until(core, 1.8, out)
    assert out[-1] == Leave("handed-over")


def test_the_last_bound_on_leaving_holds_even_when_everything_is_due_at_once() -> None:
    core = a_call()
    agent_is_speaking(core, ms=300)
    core.leave_after_last_word("handed-over", 0.1)
    assert Leave("handed-over") in core.tick(60.0)


def test_an_agent_that_is_connected_but_mute_does_not_leave_the_caller_in_silence() -> None:
    core = a_call()
    out: list[Action] = []
    run_until(core, 20.0, out)  # and no other one comes
    assert played(out).startswith(TONE.ulaw + CLIPS["one_moment"].ulaw)
    assert isinstance(out[-1], Leave)
    assert out[-1].why == "no-agent"


def test_nobody_speaks_into_a_callers_first_words_or_gives_up_an_agent_that_lets_them_finish() -> None:
    core = a_call()
    out: list[Action] = []
    run_until(core, 0.9, out)
    core.vapi_said(vapi.CallerSpoke(), 0.9)
    for tenth in range(10, 70):
        core.vapi_said(vapi.PartialHeard("user", "I already tried"), tenth / 10)
        run_until(core, tenth / 10, out)
    assert not noted(out, "clip-played")[1:]  # the tone was before they spoke
    assert not [action for action in out if isinstance(action, AskForAgent)]
    run_until(core, 8.5, out)  # nothing comes of it: they hear a sentence, then the next agent is asked for
    assert CLIPS["one_moment"].ulaw in played(out)
    run_until(core, 12.0, out)
    assert [action for action in out if isinstance(action, AskForAgent)]


def test_speech_of_which_no_word_comes_puts_nothing_off() -> None:
    core = a_call()
    core.vapi_said(vapi.CallerSpoke(), 0.2)
    out: list[Action] = []
    run_until(core, 2.5, out)
    assert CLIPS["one_moment"].ulaw[:160] in played(out)
    run_until(core, 5.5, out)
    assert [action for action in out if isinstance(action, AskForAgent)]


def test_an_agent_that_lets_the_caller_speak_first_is_waited_for_with_a_tone_that_it_is_there() -> None:
    core = a_call(agent_speaks_first=False)
    out: list[Action] = []
    run_until(core, 0.74, out)
    assert played(out) == b""
    run_until(core, 10.0, out)
    assert played(out) == TONE.ulaw


def test_an_agent_that_is_there_but_has_not_spoken_within_a_second_is_announced_by_a_tone() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    core.agent_connected(0.5)
    out: list[Action] = []
    run_until(core, 0.95, out)
    out += core.agent_audio(b"\x55" * 4000, 1.05)
    run_until(core, 3.0, out)
    assert played(out) == TONE.ulaw + b"\x55" * 4000


def test_first_words_that_wait_for_their_cushion_are_heard_within_the_second() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    core.agent_connected(0.3)
    assert core.agent_audio(b"\x55" * 400, 0.74) == []
    assert played(core.tick(0.75)) == b"\x55" * 320


def test_who_has_heard_something_is_told_nothing_by_a_tone() -> None:
    core = BridgeCore(Rules(), clips=CLIPS, now=0.0)
    core.agent_connected(0.1)
    out = core.agent_audio(b"\x55" * 4000, 0.7)
    run_until(core, 5.0, out)
    assert played(out) == b"\x55" * 4000


def test_the_same_interruption_told_late_by_webhook_does_not_unsay_what_was_cut() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    core.vapi_said(vapi.CallerInterrupted(), 0.2)
    assert noted(core.vapi_said(vapi.CallerInterrupted(), 0.9), "agent-turn-ended") == []


def test_twilios_socket_lost_without_a_stop_is_not_taken_for_a_caller_who_left() -> None:
    core = a_call()
    assert core.stream_lost("stream-lost", 1.0) == [Leave("stream-lost")]


# -- a Twilio that says nothing any more ---------------------------------------------------------------------------------


def without_twilio(core: BridgeCore, until: float) -> list[tuple[float, Action]]:
    """Everything the core does by itself, with its time, when no message of Twilio's comes."""
    out: list[tuple[float, Action]] = []
    while (at := core.next_deadline()) is not None and at <= until:
        out += [(at, action) for action in core.tick(at)]
    return out


def test_a_half_open_socket_is_left_after_3_s_and_not_before_it_was_asked() -> None:
    core = a_call()
    core.caller_audio(b"\x11" * 160, 0.5)
    done = without_twilio(core, 20.0)
    assert [at for at, action in done if action == MarkCaller(PROBE)] == [pytest.approx(2.0)]
    assert done[-1][0] == pytest.approx(3.5)
    assert done[-1][1] == Leave("stream-dead", "Twilio's socket is half-open")


@pytest.mark.parametrize("word", ["mark", "sound", "key"])
def test_a_line_whose_carrier_sends_no_sound_is_not_half_open(word: str) -> None:
    core = a_call(agent_speaks_first=False)
    left: list[Action] = []
    core.caller_audio(b"\x11" * 160, 0.0)
    for _ in range(100):
        at = core.next_deadline()
        assert at is not None
        out = core.tick(at)
        left += [action for action in out if isinstance(action, Leave)]
        if MarkCaller(PROBE) in out and word == "mark":
            core.mark_returned(PROBE, at + 0.1)
        elif MarkCaller(PROBE) in out and word == "sound":
            core.caller_audio(b"\x11" * 160, at + 1.4)
        elif MarkCaller(PROBE) in out:
            core.key_pressed("5", at + 0.7)
    assert left == []


def test_a_process_that_slept_reads_first_and_judges_then() -> None:
    core = a_call()
    core.caller_audio(b"\x11" * 160, 1.0)
    woke = core.tick(21.0)
    assert MarkCaller(PROBE) in woke
    assert not any(isinstance(action, Leave) for action in woke)
    core.caller_audio(b"\x11" * 160, 21.001)  # what had been waiting in the socket
    assert not any(isinstance(action, Leave) for action in core.tick(22.5))


def test_a_probe_is_no_answer_to_a_clear() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.vapi_said(vapi.CallerSpoke(), 0.1)
    assert core.mark_returned(PROBE, 0.11) == []
    assert core.figures()["time_to_silence_ms"] == []


def test_a_caller_on_the_way_out_is_given_up_with_the_reason_they_were_leaving_for() -> None:
    core = a_call()
    agent_is_speaking(core, ms=5000)
    core.leave_after_last_word("handed-over", 0.1)
    assert without_twilio(core, 10.0)[-1][1] == Leave("handed-over")


# -- the keypad ----------------------------------------------------------------------------------------------------------


def test_keys_are_counted_and_a_long_number_is_told_once_a_second() -> None:
    core = a_call(agent_speaks_first=False)
    out: list[Action] = []
    for n in range(16):
        run_until(core, n * 0.2, out)
        out += core.key_pressed("5", n * 0.2)
    run_until(core, 6.0, out)
    assert [note.detail["count"] for note in noted(out, "keypad-pressed")] == [1, 5, 10, 15, 16]
    assert core.figures()["audio"]["keys"] == 16
    assert not any(isinstance(action, AskForPerson) for action in out)


def test_0_asks_for_a_person_once() -> None:
    core = a_call()
    out = [action for n in range(5) for action in core.key_pressed("05"[n == 1], n * 0.3)]
    assert out.count(AskForPerson()) == 1


def test_a_caller_on_the_way_to_a_person_cannot_ask_for_one() -> None:
    core = a_call()
    agent_is_speaking(core, ms=1000)
    core.leave_after_last_word("handed-over", 0.1)
    assert AskForPerson() not in core.key_pressed("0", 0.2)


def test_who_pressed_0_does_not_have_to_hear_the_agent_out() -> None:
    core = a_call(greeting_interruptible=False)
    agent_is_speaking(core, ms=10_000)
    out = core.hand_over_now(0.5)
    assert clears(out) == 1
    out += core.agent_audio(b"\x55" * 8000, 0.6)
    out += core.vapi_said(vapi.AgentStarted(), 0.7)
    run_until(core, 3.0, out)
    assert played(out) == CLIPS["connecting_colleague"].ulaw
    assert out[-1] == Leave("handed-over")


# -- more than can be heard ----------------------------------------------------------------------------------------------


def test_a_burst_of_fifty_times_real_time_is_kept_for_a_minute_and_the_rest_dropped_and_told_once() -> None:
    core = a_call()
    out: list[Action] = []
    sent = b"".join(n.to_bytes(2, "big") * 200 for n in range(3000))  # 150 s of sound
    for n in range(3000):
        now = n / 1000
        run_until(core, now, out)
        out += core.agent_audio(sent[n * 400 : (n + 1) * 400], now)
        assert core.figures()["audio"]["from_agent_dropped"] + 480_000 + len(played(out)) >= (n + 1) * 400
    run_until(core, 65.0, out)
    dropped = core.figures()["audio"]["from_agent_dropped"]
    assert len(played(out)) + dropped == len(sent)
    assert 83 * 8000 < dropped < 91 * 8000
    assert played(out)[:400_000] == sent[:400_000]
    assert len(noted(out, "agent-audio-dropped")) == 1


# -- barge-in from two sources ---------------------------------------------------------------------------------------------

GAPS_MS = (0, 1, 100, 400, 499, 500, 501, 900)
SAID: dict[str, vapi.Message] = {
    "s": vapi.CallerSpoke(),
    "i": vapi.CallerInterrupted(),
}  # whoever brings it: the socket, or the webhook's hint


def expected_clears(evidence: Sequence[tuple[float, str]], *, instant: bool) -> list[float]:
    """Of an agent that always has something unheard: the first evidence that counts, and then no other within 500 ms."""
    cleared: list[float] = []
    for now, what in evidence:
        if (instant or what == "i") and (not cleared or now - cleared[-1] >= 0.5):
            cleared.append(now)
    return cleared


@pytest.mark.parametrize("instant", [True, False], ids=["instant", "confirm"])
def test_two_sources_of_one_interruption_clear_once_in_500_ms(instant: bool) -> None:
    """Of the 8192 patterns of three gaps and two kinds of evidence every third: 2731."""
    for gaps, kinds in islice(product(product(GAPS_MS, repeat=3), product("si", repeat=4)), 0, None, 3):
        core = a_call(instant=instant)
        out: list[Action] = []
        at_ms = [0, gaps[0], gaps[0] + gaps[1], sum(gaps)]
        evidence = [(ms / 1000, kind) for ms, kind in zip(at_ms, kinds, strict=True)]
        cleared: list[float] = []
        for turn, (now, kind) in enumerate(evidence, start=1):
            run_until(core, now, out)
            out += core.vapi_said(vapi.AgentStarted(), now) + core.agent_audio(bytes([turn]) * 4000, now)
            step = core.vapi_said(SAID[kind], now)
            cleared += [now] * clears(step)
            out += step
        assert cleared == expected_clears(evidence, instant=instant), (gaps, kinds)


@pytest.mark.parametrize("late_ms", GAPS_MS)
@pytest.mark.parametrize("order", ["si", "is", "ii"])
def test_no_sound_of_an_interrupted_turn_is_played_once_it_was_confirmed(order: str, late_ms: int) -> None:
    """The agent sends on, in its odd pace, until Vapi has cut it short; then its turn ends."""
    core, now = a_call(), 0.0
    evidence = [(0.2, order[0]), (0.2 + late_ms / 1000, order[1])]
    confirmed_at = next(at for at, kind in evidence if kind == "i")
    happens: list[tuple[float, str]] = sorted([(n * 0.046, "sound") for n in range(30)] + [*evidence, (confirmed_at + 0.06, "stopped")])
    out = core.vapi_said(vapi.AgentStarted(), 0.0)
    for now, what in happens:
        run_until(core, now, out)
        if what == "sound" and now < confirmed_at + 0.05:
            out += core.agent_audio(b"\x55" * 743, now)
        elif what == "stopped":
            out += core.vapi_said(vapi.AgentStopped(), now)
        elif what in SAID:
            out += core.vapi_said(SAID[what], now)
    run_until(core, now + 2, out)
    nothing_left = order == "is"  # the caller speaks on, and there is nothing any more that could be cleared
    assert clears(out) == (1 if nothing_left else len(expected_clears(evidence, instant=True)))
    assert played(out[out.index(noted(out, "interruption-confirmed")[0]) :]) == b""
