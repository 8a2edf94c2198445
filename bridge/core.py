"""What the bridge decides. No socket, no clock, no database, no logging.

Feed it what happened, perform what it returns. `now` is seconds of any monotonic clock. Audio is 8 kHz mu-law.

Theory. Sound flows both ways, all but untouched: towards the caller through `AgentVoice`, which knows what was heard, towards the
agent through `CallerVoice`, which leaves no hole. `Pulse` tells a silent line from a dead one. What becomes of a caller who
speaks over the agent is `BargeIn`'s to say; every `WayOut` of a call lets the last word be heard first, within a bound. What was
said and heard of a turn `AgentTurn` knows, what the agent owes `DeadAir`, whether one is there at all `Doubt`. Here is only what
they have to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge import vapi_messages as vapi
from bridge.actions import Action, AskForAgent, Leave, Noted, TellAgent
from bridge.agenda import Agenda
from bridge.agent_turn import AgentTurn
from bridge.audio import FRAME_S, Clip, ms
from bridge.barge_in import BargeIn, Sign, Turn
from bridge.dead_air import DeadAir
from bridge.doubt import Doubt
from bridge.figures import Figures
from bridge.keypad import Keypad
from bridge.lateness import Lateness
from bridge.longest import ROLLED_OVER, TIME_IS_UP, LongestTime
from bridge.moments import NEVER
from bridge.not_heard import NotHeard
from bridge.parked import LeftOff
from bridge.pulse import PROBE, Pulse
from bridge.rules import Rules
from bridge.tone import TONE
from bridge.uplink import CallerVoice
from bridge.voice import AgentVoice, Relayed
from bridge.way_out import TOO_LATE, WayOut

SPEAKING = Turn.SPEAKING
ASKED = Sign("asked", "house")
SAME_NEWS_S = 1.0  # a webhook comes later than the socket's word; an older hint is left out before (`bridge.live`)


class BridgeCore:
    """One phone call, seen as a state machine."""

    def __init__(
        self,
        rules: Rules,
        *,
        clips: Mapping[str, Clip],
        now: float,
        opened_at: float | None = None,
        said_until: float = 0.0,
        stream: int = 0,
    ) -> None:
        """`opened_at`: when the stream began, if not now; `said_until`: when what was said on it before will have been heard.

        `stream`: which of the call's streams it is, so that no two interruptions of a call have one name.
        """
        self._rules = rules
        self._clips = {**clips, "tone": TONE}
        self._figures = Figures()
        lateness = Lateness()
        self._voice = AgentVoice(lateness, ear_at=said_until)
        self._doubt = Doubt(rules)
        self._caller = CallerVoice(rules, self._figures, lateness, self._doubt, now)
        self._keypad = Keypad(rules, self._figures)
        self._pulse = Pulse(rules, now)
        self._dead_air = DeadAir(rules)
        self._not_heard = NotHeard(rules)
        self._longest = LongestTime(rules)
        self._said = AgentTurn(rules)
        self._opened_at = now if opened_at is None else opened_at
        self._silent_since = max(self._opened_at, said_until)
        self._agenda = Agenda(filler=self._silent_since + rules.filler_after, agent=now + rules.agent_within)
        self._stream = stream
        self._barge_in = BargeIn(rules, self._figures, self._voice, self._said, self._agenda, stream=stream)
        self._way_out = WayOut(rules, self._voice, self._agenda)
        self._agent_speaking = False
        self._agent_audio_at: float | None = None
        self._caller_paused_at: float | None = None
        self._fell_silent_at = -NEVER  # the caller, last
        self._response = ""
        self._greeted = False
        self._greeting_from = NEVER  # of all that was to be played, where the agent's first sound begins
        self._greeting_said = False
        self._dismissed = False  # the agent may say what it wants: the caller is on the way to a person
        self._overflow_noted = False
        self._agent_opens = rules.agent_speaks_first  # or is it the caller, with the one to be connected to
        self.left_off: LeftOff | None = None  # where the agent was when the stream was lost, if it can go on with the next one

    # -- sound: the two hot paths ----------------------------------------------------------------------------------

    def caller_audio(self, ulaw: bytes, now: float) -> list[Action]:
        """Relayed as it comes; kept, bounded, until the agent is there."""
        return self._caller.add(ulaw, now)

    @property
    def relays_caller(self) -> Callable[[bytes, float], bool]:
        """`caller_audio` without a list: True when all there is to do is to hand it on. Else nothing is done."""
        return self._caller.relays

    def relays_agent(self, ulaw: bytes, now: float) -> Relayed | None:
        """`agent_audio` without a list: what to play now, when that is all there is to do. None: nothing was done, all of it is to do.

        In the middle of a turn, with nothing on the agenda: nobody interrupts, leaves, or waits for an agent.
        """
        said, voice = self._said, self._voice
        if self._agenda.at != NEVER or self._barge_in.turn is not SPEAKING or self._way_out.leave is not None:
            return None
        if not said.bytes or self._dismissed or self._not_heard.at != NEVER or self._not_heard.spoke_at is not None:
            return None
        sound = voice.relay(ulaw, now)
        if sound is None:
            return None
        figures = self._figures
        figures.downlink_bytes += len(ulaw)
        figures.downlink_frames += 1
        self._agent_audio_at = now
        said.bytes += len(ulaw)
        said.is_over = False
        heard_at = voice.heard_at(now)
        self._dead_air.agent_sound(heard_at)
        self._doubt.agent_sound(heard_at)
        return sound

    def agent_audio(self, ulaw: bytes, now: float) -> list[Action]:
        """Re-framed and paced; dropped while it belongs to an interrupted turn."""
        self._figures.downlink_bytes += len(ulaw)
        self._figures.downlink_frames += 1
        gap = NEVER if self._agent_audio_at is None else now - self._agent_audio_at
        self._agent_audio_at = now
        if self._barge_in.turn is Turn.FLUSHED or self._dismissed:
            if self._dismissed or self._barge_in.cut_goes_on(gap, now):
                self._figures.downlink_flushed += len(ulaw)
                self._figures.downlink_late += len(ulaw)
                return []
            self._barge_in.turn = Turn.SPEAKING  # a turn nobody announced: better heard than lost
            self._said.bytes = 0
        self._agenda.strike("filler")
        self._agenda.strike("agent")
        if self._said.bytes == 0:
            self._first_sound_of_turn(now)
        self._said.sound(len(ulaw))
        out: list[Action] = [*self._voice.add(ulaw, now)]
        heard_at = self._voice.heard_at(now)
        self._dead_air.agent_sound(heard_at)
        self._not_heard.agent_sound(heard_at)
        self._doubt.agent_sound(heard_at)
        if self._voice.dropped_bytes and not self._overflow_noted:
            self._overflow_noted = True  # the figures have the bytes
            out.append(Noted("agent-audio-dropped", detail={"policy": "the newest", "held_ms": ms(self._voice.held_bytes)}))
        if self._way_out.leave is not None and not self._agent_speaking:  # the tail of a last word: no more follows
            out += self._voice.end_turn(now)
        return out

    # -- what the two wires say ------------------------------------------------------------------------------------

    def agent_connected(self, now: float) -> list[Action]:
        """Vapi's socket is open: give it what the caller said so far, then a frame every 20 ms for ever."""
        if not self._voice.sent_bytes:
            self._agenda.put("sign", self._silent_since + self._rules.filler_after)
        if not self._way_out.is_moving:  # else this session is not the one that grows old here
            self._longest.connected(now)
        if self._agent_opens:
            self._agenda.put("agent", now + self._rules.agent_within)
            self._agenda.put_off("filler", now + self._rules.first_sound_after)
        else:
            self._agenda.strike("filler")
            self._agenda.strike("agent")
        self._doubt.agent_there(now)
        return self._caller.connected(now) + self._keypad.connected()

    def vapi_said(self, message: vapi.Message, now: float, *, by: str = "socket") -> list[Action]:
        """`by`: socket or webhook, whichever said it."""
        if self._dismissed:
            return []
        self._dead_air.reachable()
        match message:
            case vapi.AgentStarted():
                return self._agent_started(now)
            case vapi.AgentStopped():
                return self._agent_stopped(now)
            case vapi.CallerSpoke():
                self._caller_paused_at = None
                self._dead_air.caller_spoke(now)
                self._doubt.told(speaks=True)
                self._not_heard.caller_spoke(now, heard_until=self._voice.heard_at(now))
                self._unprotect_greeting(now)
                return self._barge_in.caller_spoke(now, by=by)
            case vapi.CallerPaused():
                return self._caller_paused(now)
            case vapi.CallerInterrupted():
                self._doubt.told()
                self._unprotect_greeting(now)
                return [] if self._barge_in.protected else self._interrupted(now, Sign("interrupted", by))
            case vapi.ResponseQueued(turn_id) if turn_id != self._response:
                self._response = turn_id
                self._barge_in.turn_queued()
                return [Noted("agent-response-queued", "vapi")]
            case vapi.FinalHeard(role, text) if role != "user":
                return self._said.said(text)
            case vapi.FinalHeard(_, text):
                self._caller_said(text, now, is_all=True)
            case vapi.WordsSpoken(source, timing, speech):
                self._dead_air.agent_speech(source)
                self._said.spoken(timing, speech)
            case vapi.ToolsCalled():
                self._dead_air.tool_called(now)
            case vapi.PartialHeard(role, text):
                if role == "user":
                    self._caller_said(text, now, is_all=False)
                    self._dead_air.caller_goes_on(now)
                return [Noted("transcript-partial", "vapi", {"role": role, "text": text})]
            case vapi.SessionEnded(raw) as ended:
                if ended.by_our_side:
                    return self.agent_lost(now, raw=raw)
                return self.leave_after_last_word("agent-ended", now, raw=raw, wait_for_sentence=False)
        return []

    def speech_hinted(self, now: float) -> list[Action]:
        """The same as `CallerSpoke`, by Vapi's webhook. It may tell of speech whose end the socket has told since: that is old news."""
        is_old = not self._barge_in.caller_speaks and now < self._fell_silent_at + SAME_NEWS_S
        return [] if is_old else self.vapi_said(vapi.CallerSpoke(), now, by="webhook")

    def mark_returned(self, name: str, now: float) -> list[Action]:
        """Twilio played, or cleared, everything before this mark."""
        self._pulse.answered(now)
        if name == PROBE:
            self._voice.probe_returned(now)
            return []
        out: list[Action] = []
        current = self._voice.mark_returned(name, now)
        if current and self._barge_in.awaits_silence:
            out += self._barge_in.silent(now)
        elif current and not self._greeted and self._voice.gone_bytes > self._greeting_from:
            self._greeted = True
            out.append(Noted("greeting-heard", "twilio", {"ms": self._since_opened(now)}))
        self._unprotect_greeting(now)
        return out + self._go_if_it_is_time(now)

    def key_pressed(self, key: str, now: float) -> list[Action]:
        """A key of the caller's telephone; which one it was is the keypad's secret."""
        self._pulse.heard(now)
        self._doubt.forget()  # its tone
        if self._rules.keypad_digits:
            self._not_heard.key_pressed()
        return self._keypad.pressed(key, now, is_leaving=self._is_leaving)

    def agent_lost(self, now: float, *, raw: str = "") -> list[Action]:
        """Vapi's socket closed without an end of the session, or could not be opened: another agent may go on where this one was."""
        if self._is_leaving:
            return self._nothing_follows(now)
        if self._way_out.is_moving:
            return self._go_now(Leave("agent-lost", raw), now)
        self._agent_opens = True
        self._part_with_agent()
        out = self._said.left(unheard=0)  # what it said is heard, before anything else
        self._agenda.clear()
        self._agenda.put("agent", now + self._rules.agent_within)
        return [*out, *self._play_clip("one_moment", now), AskForAgent(raw)]

    def agent_unreachable(self, now: float) -> list[Action]:
        """Nothing comes from Vapi, not even an answer. Whoever hears nothing by now is told, whether or not anything is owed."""
        is_heard = self._voice.heard_at(now) >= now + FRAME_S  # less than a frame waits for the rest of its turn
        if is_heard or self._is_leaving or self._way_out.is_moving:
            return []
        self._not_heard.agent_is_away(now)
        if not self._dead_air.unreachable(now):
            return []
        self._figures.dead_air += 1
        return [Noted("dead-air", detail={"unreachable": True}), *self._play_clip("trouble", now)]

    def agent_asked_anew(self, now: float) -> list[Action]:
        """Whoever was making the agent is gone, and it is made once more: the caller is asked for patience again."""
        if self._is_leaving or self._caller.has_agent:
            return []
        self._agenda.strike("filler")
        self._agenda.put("agent", now + self._rules.agent_within)
        return self._play_clip("one_moment", now)

    def _part_with_agent(self) -> None:
        self._agent_speaking = False
        self._caller.disconnected()
        self._longest.over()
        self._dead_air = DeadAir(self._rules)  # what was owed, nobody owes any more
        self._not_heard = NotHeard(self._rules)
        self._doubt.agent_gone()

    def no_other_agent(self, now: float, *, raw: str = "") -> list[Action]:
        """The one that was lost was the last one of this stream."""
        return [] if self._is_leaving else self._apologise("agent-lost", now, raw=raw)

    def no_agent(self, now: float, *, raw: str = "") -> list[Action]:
        """No Vapi session can be had for this call."""
        return [] if self._is_leaving else self._apologise("no-agent", now, raw=raw)

    def caller_left(self, now: float) -> list[Action]:
        """Twilio said stop: the call is over."""
        out = self._go_now(Leave("caller-left"), now)
        self._voice.drop()
        return out

    def stream_lost(self, why: str, now: float, *, raw: str = "") -> list[Action]:
        """Twilio's socket is gone without a `stop`: the caller may be there, and the resume door will be asked."""
        if not self._is_leaving and not self._way_out.is_moving and not self._way_out.is_gone and self._caller.has_agent:
            self.left_off = self._where_the_agent_is(now)
        out = self._go_now(Leave(why, raw), now)
        self._voice.drop()
        return out

    def _where_the_agent_is(self, now: float) -> LeftOff:
        return LeftOff(
            rest=self._voice.rest(now),
            said=self._said,
            dead_air=self._dead_air,
            not_heard=self._not_heard,
            longest=self._longest,
            agent_speaking=self._agent_speaking,
            caller_speaking=self._barge_in.caller_speaks,
            flushed=self._barge_in.turn is Turn.FLUSHED,
        )

    def take_up(self, left_off: LeftOff, now: float) -> list[Action]:
        """The agent of the stream before this one goes on here, where it was; the caller hears the rest, and no word about it."""
        self._agenda.clear()
        self._agenda.put("sign", self._silent_since + self._rules.filler_after)
        self._greeted = self._greeting_said = True
        self._agent_opens = False
        self._said, self._dead_air, self._longest = left_off.said, left_off.dead_air, left_off.longest
        self._not_heard = left_off.not_heard
        self._barge_in = BargeIn(self._rules, self._figures, self._voice, self._said, self._agenda, stream=self._stream)
        self._barge_in.protected, self._barge_in.caller_speaks = False, left_off.caller_speaking
        self._barge_in.turn = Turn.FLUSHED if left_off.flushed else Turn.SPEAKING
        self._barge_in.was_cut(now)
        self._agent_speaking = left_off.agent_speaking
        self._agent_audio_at = now  # what follows without a pause is of the same turn
        out = self._caller.connected(now) + self._keypad.connected()
        if left_off.rest:
            self._figures.downlink_bytes += len(left_off.rest)
            self._figures.downlink_frames += 1
            out += self._voice.add(left_off.rest, now)
        self._not_heard.line_was_gone(self._voice.heard_at(now))
        self._doubt.agent_there(now, tells_ends=True)
        return out if self._agent_speaking else [*out, *self._voice.end_turn(now)]

    def leave_after_last_word(self, why: str, now: float, *, raw: str = "", wait_for_sentence: bool = True) -> list[Action]:
        """Go when what the agent is saying, or is about to say, has been heard. It is protected: nothing interrupts it."""
        if self._way_out.is_gone:
            return []
        if self._is_leaving:
            return [] if wait_for_sentence else self._nothing_follows(now)
        self._way_out.decide(Leave(why, raw), now)
        self._dead_air.end()
        self._not_heard.end()
        self._doubt.end()
        self._longest.over()
        self._barge_in.protected = True
        out = self._barge_in.play_on(now)
        if not wait_for_sentence:
            return out + self._nothing_follows(now)
        if not self._agent_speaking and self._voice.unheard(now) <= 0:
            self._way_out.await_sentence(now)
        return out + self._go_if_it_is_time(now)

    def hand_over_now(self, now: float) -> list[Action]:
        """The caller asked for a person with a key: cut the agent short, say who comes, go."""
        if self._is_leaving:
            return []
        out = self._barge_in.flush(now, ASKED) if self._voice.unheard(now) > 0 else []
        self._dismissed = True
        return out + self._apologise("handed-over", now, raw="")

    def hand_on(self, now: float) -> list[Action]:
        """This process is to leave: let another one have the caller when no sentence is cut by it, within the bound of a last word."""
        if self._is_leaving or self._way_out.is_moving:
            return []
        self._way_out.move(now)
        self._longest.over()
        return self._go_if_it_is_time(now)

    def stuck(self, stuck_ms: int) -> list[Action]:
        """Sound waits, here or on its way out, and nothing leaves."""
        self._figures.stuck += 1
        return [Noted("audio-stuck", detail={"ms": stuck_ms, "held_ms": ms(self._voice.held_bytes)})]

    def flush(self, now: float) -> list[Action]:
        """Somebody above wants silence now; a protected sentence is spoken all the same."""
        if self._barge_in.protected:
            return []
        self._doubt.agent_cut(now)
        return self._barge_in.flush(now, ASKED)

    # -- time ------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` wants to run; None when there is nothing to wait for any more."""
        if self._way_out.is_gone:
            return None
        return min(self._caller.fill_at, self.next_but_gap())

    @property
    def gap(self) -> CallerVoice:
        """Whose `fill_at` is one of the deadlines, put off by each of the caller's frames."""
        return self._caller

    @property
    def after_mark(self) -> float:
        """The first of the deadlines that a mark may put forward, if it does nothing else."""
        return min(self._pulse.at, self._agenda.at)

    def next_but_gap(self) -> float:
        """The deadlines but that one."""
        first = min(
            *(self._agenda.at, self._pulse.at, self._dead_air.at, self._not_heard.at, self._doubt.at),
            *(self._said.at, self._longest.at, self._keypad.at),
        )
        send = self._voice.next_send()
        return send if send is not None and send < first else first

    def tick(self, now: float) -> list[Action]:
        """Do everything that is due."""
        if self._way_out.is_gone:
            return []
        out: list[Action] = [*self._alarm(now), *self._voice.pace(now)]
        if self._caller.fill_at <= now:
            out += self._caller.fill(now)
        if self._keypad.at <= now:
            out += self._keypad.tick(now)
        if self._pulse.at <= now:
            self._pulse.heard(self._caller.heard_at)
            for said in self._pulse.check(now, self._voice.mark_due()):
                if isinstance(said, Leave):
                    return self.stream_lost(said.why, now, raw=said.raw)
                self._voice.probe_sent(now)
                out.append(said)
        if self._dead_air.at <= now:
            out += self._owed(now)
        if self._not_heard.at <= now:
            out += self._ask_again(now)
        if self._doubt.at <= now:
            out += self._is_it_there(now)
        if self._said.at <= now:
            self._said.give_up()
        if self._longest.at <= now:
            out += self._time_nearly_up(now)
        for what in self._agenda.due(now):
            if self._agenda.strike(what):  # an earlier one may have ended everything
                out += self._due(what, now)
        return out + self._go_if_it_is_time(now)

    def figures(self) -> dict[str, Any]:
        """The call's figures so far, as CallMetrics names them."""
        return self._figures.as_metrics(self._voice)

    # -- the agent's turns -----------------------------------------------------------------------------------------

    def _agent_started(self, now: float) -> list[Action]:
        out = [] if self._agent_speaking else self._barge_in.agent_started(now)
        self._agent_speaking = True
        self._said.begin()
        self._dead_air.agent_started(now)
        self._not_heard.agent_started()
        if self._barge_in.turn is Turn.FLUSHED:
            self._barge_in.turn = Turn.SPEAKING
        self._way_out.await_no_sentence()
        return [*out, Noted("agent-speech-started", "vapi")]

    def _agent_stopped(self, now: float) -> list[Action]:
        self._agent_speaking = False
        self._said.over()
        self._dead_air.agent_stopped()
        self._doubt.agent_stopped()
        out: list[Action] = [Noted("agent-speech-stopped", "vapi")]
        if self._barge_in.end_confirms:
            return out + self._interrupted(now, Sign("turn-ended"))
        if self._barge_in.turn is not Turn.FLUSHED:
            out += self._said.heard_out()
            out += self._voice.end_turn(now)
        self._greeting_said = True
        self._unprotect_greeting(now)
        return out + self._go_if_it_is_time(now)

    def _interrupted(self, now: float, sign: Sign) -> list[Action]:
        out = self._barge_in.flush(now, sign)
        if out:
            self._dead_air.agent_cut(now)
            self._not_heard.agent_cut(now)
            self._doubt.agent_cut(now)
        return out

    def _caller_paused(self, now: float) -> list[Action]:
        self._barge_in.caller_speaks = False
        self._caller_paused_at = self._fell_silent_at = now
        self._dead_air.caller_paused(now)
        self._doubt.told(speaks=False)
        self._not_heard.caller_paused(now)
        return [Noted("user-speech-stopped", "vapi")]

    def _caller_said(self, text: str, now: float, *, is_all: bool) -> None:
        self._barge_in.caller_said(text)
        self._dead_air.caller_said(text)
        self._not_heard.caller_said(text, now, is_all=is_all, wants_time=self._dead_air.caller_wants_time)
        if text.strip():
            self._doubt.understood()

    def _unprotect_greeting(self, now: float) -> None:
        """A greeting that may not be interrupted is protected until the caller has heard it, not until it was sent."""
        if self._greeting_said and not self._is_leaving and self._voice.all_heard(now):
            self._barge_in.protected = False

    def _first_sound_of_turn(self, now: float) -> None:
        if self._figures.first_audio_ms is None:
            self._figures.first_audio_ms = self._since_opened(now)
            self._greeting_from = self._voice.came_bytes
        if self._caller_paused_at is not None:
            self._figures.turn_latency_ms.append(int((now - self._caller_paused_at) * 1000))
            self._caller_paused_at = None

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _apologise(self, why: str, now: float, *, raw: str) -> list[Action]:
        self._agent_speaking = False
        self._caller.disconnected()
        self._agenda.clear()
        out = self._play_clip("connecting_colleague", now)
        return out + self.leave_after_last_word(why, now, raw=raw, wait_for_sentence=False)

    def _owed(self, now: float) -> list[Action]:
        """Dead air: a sentence first; then the agent counts as lost, and whoever takes the caller on then does so now."""
        trouble = self._dead_air.check(now)
        if trouble is None:
            return []
        noted = Noted("dead-air", detail={"ms": trouble.ms})
        if trouble.lost:
            return [noted, *self.agent_lost(now, raw="dead air")]
        self._figures.dead_air += 1
        return [noted, *self._play_clip("trouble", now)]

    def _ask_again(self, now: float) -> list[Action]:
        """Both wait, and the caller may have spoken: the agent asks, and owes that from now on."""
        if not self._not_heard.check(now, heard_until=self._voice.heard_at(now), is_owed=self._dead_air.owes):
            return []
        self._dead_air.asked(now)
        return [TellAgent(vapi.not_heard()), Noted("caller-asked-to-repeat")]

    def _is_it_there(self, now: float) -> list[Action]:
        """It tells nothing. Whoever owes something, or is to open the call, is waited for all the same."""
        if self._dead_air.at != NEVER or "agent" in self._agenda:
            self._doubt.forget()
            return []
        doubted = self._doubt.check(now, busy_until=max(self._voice.heard_at(now), self._not_heard.time_until))
        if doubted is None:
            return []
        self._dead_air.doubted(doubted.since)
        if not doubted.asks:
            return []
        self._not_heard.asked()
        return [TellAgent(vapi.not_heard()), Noted("caller-asked-to-repeat")]

    def _time_nearly_up(self, now: float) -> list[Action]:
        """Before Vapi cuts the session off: goodbye, or the next session, which the caller does not notice if this is a pause."""
        in_pause = not self._agent_speaking and self._voice.all_heard(now) and self._dead_air.is_nothing()
        if not self._longest.is_up(now, in_pause=in_pause):
            return []
        if not self._rules.goes_on:
            goodbye = TellAgent(vapi.say(self._rules.time_is_up, last=True))
            out = [goodbye, *self.leave_after_last_word("agent-ended", now, raw=TIME_IS_UP)]
            self._way_out.await_sentence(now)  # of whatever it says now, this is the last
            return out
        if not in_pause:
            return self.agent_lost(now, raw=TIME_IS_UP)
        self._agent_opens = False
        self._part_with_agent()
        self._agenda.clear()
        self._agenda.put("agent", now + self._rules.agent_within)
        return [AskForAgent(ROLLED_OVER)]

    def _play_clip(self, name: str, now: float) -> list[Action]:
        """A sentence of ours, for which the agent's turn is over."""
        out = self._barge_in.play_on(now)  # what is held comes before it
        self._barge_in.turn, self._said.bytes = Turn.SPEAKING, 0  # it is nobody's turn
        return [*out, *self._play(name, now)]

    def _play(self, name: str, now: float) -> list[Action]:
        clip = self._clips[name]
        self._figures.clip_bytes += len(clip.ulaw)
        said = Noted("clip-played", detail={"clip": name, "text": clip.text})
        out: list[Action] = [said, *self._voice.add(clip.ulaw, now), *self._voice.end_turn(now)]
        self._doubt.our_sound(self._voice.heard_at(now))
        return out

    def _sign_of_life(self, now: float) -> list[Action]:
        """The agent is there and nobody has heard anything yet: its first words at once if they wait for more, else a tone.

        The tone is no turn: of one that was cut on the stream before nothing is heard after it either.
        """
        if self._voice.sent_bytes:
            return []
        return [*self._voice.hurry(now)] if self._voice.held_bytes else self._play("tone", now)

    def _nothing_follows(self, now: float) -> list[Action]:
        """No more sound of the agent will come: what is here is played to its end, then the call is left."""
        self._agent_speaking = False
        self._way_out.await_no_sentence()
        return [*self._voice.end_turn(now), *self._go_if_it_is_time(now)]

    def _go_now(self, why: Leave, now: float) -> list[Action]:
        """In the middle of whatever is being said: what was not heard of it by now never will be."""
        gone = self._way_out.go(why)
        return [*self._said.left(unheard=self._voice.unheard(now)), *gone] if gone else []

    def _go_if_it_is_time(self, now: float) -> list[Action]:
        if self._agent_speaking:
            return []
        if self._is_leaving:
            return self._way_out.once_heard(now)
        if not self._way_out.is_moving or "agent" in self._agenda:
            return []
        return self._way_out.once_calm(now, nobody_waits=self._dead_air.is_nothing())

    @property
    def _is_leaving(self) -> bool:
        return self._way_out.leave is not None

    # -- deadlines -------------------------------------------------------------------------------------------------

    def _due(self, what: str, now: float) -> list[Action]:
        match what:
            case "confirm":
                return self._barge_in.play_on(now)
            case "filler" | "agent" if (words_at := self._dead_air.caller_is_understood(now)) is not None:
                # Whoever speaks waits for nobody, and an agent that understands them is there.
                self._agenda.put(what, words_at + (self._rules.caller_breath if what == "filler" else self._rules.agent_within))
                return []
            case "filler":
                return self._play_clip("one_moment", now)
            case "sign":
                return self._sign_of_life(now)
            case "agent":
                return self._no_sound_in_time(now)
            case "drain" | "hand-on":
                return self._go_now(TOO_LATE, now)
        return []  # "heard" and "last-sentence" only wake the check that follows

    def _no_sound_in_time(self, now: float) -> list[Action]:
        """An agent that is there and says nothing may have lost its voice: another one may have one."""
        raw = "no sound of an agent in time"
        return self.agent_lost(now, raw=raw) if self._caller.has_agent else self.no_agent(now, raw=raw)

    def _alarm(self, now: float) -> list[Action]:
        """Sound is here and may go, and nothing went: our own process did not get to it."""
        due = self._voice.next_send()
        return [] if due is None or now - due < self._rules.stuck_after else self.stuck(int((now - due) * 1000))

    # -- small things ----------------------------------------------------------------------------------------------

    def _since_opened(self, now: float) -> int:
        return int((now - self._opened_at) * 1000)
