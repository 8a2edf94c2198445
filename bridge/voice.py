"""The agent's voice on its way to the caller's ear: held here, sent to Twilio, heard.

What is at Twilio can only be cleared; what is here can be paused, resumed or dropped. So at most `lead` of sound is
sent ahead of the ear, and marks every 200 ms tell what was heard. A mark is named `<generation>:<ms>`, ms of this
generation's sound sent so far; each clear begins a new generation, so a mark that returns because of the clear is
known by its old number and never taken for sound that was played.

Vapi's sound comes in odd chunks with gaps up to 103 ms (measured on live calls), on average just as fast as it is heard.
So whenever the ear has run dry, a cushion of 120 ms is gathered first, once, instead of a stutter in every sentence. It is larger,
and so is what may be ahead of the ear, while the network is uneven (`bridge.lateness`). As long as the ear does not run dry, what the
clocks of both sides move apart is made good by leaving out or repeating 5 to 10 ms (`bridge.drift`), in the next pause, or where none comes
within two seconds in the middle of a word (`bridge.splice`).

Pure: positions are bytes, `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bridge import splice
from bridge.audio import BYTES_PER_S, FRAME_BYTES, FRAME_S, ms, seconds, whole_frames
from bridge.drift import Drift
from bridge.lateness import Lateness


@dataclass(frozen=True, slots=True)
class ToCaller:
    """Play this; whole 20 ms frames but at the end of a turn."""

    ulaw: bytes


@dataclass(frozen=True, slots=True)
class MarkCaller:
    """Tell us when everything so far has been heard."""

    name: str


@dataclass(frozen=True, slots=True)
class FlushCaller:
    """Clear what Twilio has not played."""


Playing = ToCaller | MarkCaller
Relayed = tuple[bytes, str, bytes]  # sound, and if there is a mark: its name and the sound behind it

NOTHING_YET: Relayed = (b"", "", b"")

TAIL_LIMIT = 2 * BYTES_PER_S
PACE_STEP_S = 3 * FRAME_S  # frames that wait are sent three at a time: fewer wake-ups, same sound
PAUSE_WITHIN_S = 2.0  # for a correction


class AgentVoice:
    """One caller's ear, as far as we can know it."""

    def __init__(
        self,
        lateness: Lateness | None = None,
        *,
        lead_s: float = 0.3,
        cushion_s: float = 0.12,
        mark_every_ms: int = 200,
        held_limit_s: float = 60.0,
        ear_at: float = 0.0,
    ) -> None:
        """`ear_at`: when the ear will have heard what somebody else sent it."""
        self._lateness = lateness or Lateness()
        self._drift = Drift()
        self._correction = 0.0  # that is due: by how much too late sound is heard
        self._correct_by = 0.0
        self._usual_lead = self._lead = lead_s
        self._usual_cushion = self._cushion = cushion_s
        self._filling_since: float | None = None
        self._longest_fill = 2 * cushion_s
        self._mark_every = mark_every_ms * BYTES_PER_S // 1000
        self._held_limit = int(held_limit_s * BYTES_PER_S)
        self._held = bytearray()
        self._tail = bytearray()  # of this turn, sent since the last mark that was played: what a resume plays again
        self._surplus = 0  # bytes kept for a resume although the ear has probably had them
        self._sent = 0
        self._marked = 0  # position of the last mark sent
        self._played = 0  # position of the last mark of this generation that came back
        self._marks: deque[int] = deque()
        self._due: deque[float] = deque()  # when each of them should be back
        self._clear_due: float | None = None  # when the mark behind a clear should
        self._probe_due: float | None = None
        self._ear_at = ear_at  # when it will have heard everything sent
        self._turn_over = False
        self._paused = False
        self.generation = 0
        # Over all generations, for the call's counters. What came in, was repeated and taken back went out, was left out, dropped or let
        # go, or is held.
        self.dropped_bytes = 0
        self.sent_bytes = 0
        self.sent_frames = 0
        self.held_most = 0
        self.taken_back_bytes = 0
        self.let_go_bytes = 0
        self.left_out_bytes = 0
        self.repeated_bytes = 0
        self.held_back = 0  # times that the cushion was larger than usual
        self.held_back_most = 0  # bytes

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    # -- what is where -------------------------------------------------------------------------------------------

    @property
    def came_bytes(self) -> int:
        """All that ever was to be played, over all generations."""
        return self.sent_bytes - self.taken_back_bytes + self.let_go_bytes + len(self._held)

    @property
    def gone_bytes(self) -> int:
        """Of it, what marks prove to have been played, or is not to be played any more."""
        return self.came_bytes - len(self._held) - (self._sent - self._played)

    def heard(self, now: float) -> int:
        """Bytes of this generation heard: what the clock says, within what the marks prove."""
        by_clock = self._sent - int(max(0.0, self._ear_at - now) * BYTES_PER_S)
        next_mark = self._marks[0] if self._marks else self._sent
        return max(self._played, min(by_clock, next_mark))

    def unheard(self, now: float) -> int:
        """Bytes sent or held that the caller has not heard."""
        return self._sent - self.heard(now) + len(self._held) - self._surplus

    def all_heard(self, now: float, *, grace_s: float = 1.0) -> bool:
        """True when nothing is left to play. A last mark that never returns is given up `grace_s` after its time."""
        return not self._held and (self._played >= self._sent or now >= self._ear_at + grace_s)

    def heard_at(self, now: float) -> float:
        """When all that is here and at Twilio will have been heard."""
        ear_at = self._ear_at
        return (now if now > ear_at else ear_at) + len(self._held) / BYTES_PER_S

    def last_given_up_at(self, *, grace_s: float = 1.0) -> float:
        return self._ear_at + seconds(len(self._held)) + grace_s

    def mark_due(self) -> float | None:
        """When the oldest mark that is not back should have been."""
        return self._clear_due if self._clear_due is not None else self._due[0] if self._due else None

    # -- what happens --------------------------------------------------------------------------------------------

    def add(self, ulaw: bytes, now: float) -> list[Playing]:
        """More of the agent's voice, in any chunks. A burst is no error; past the limit the newest is dropped and counted."""
        room = self._held_limit - len(self._held)
        if len(ulaw) > room:
            self.dropped_bytes += len(ulaw) - room
            ulaw = ulaw[:room]
        self._turn_over = False
        if self._filling_since is None:
            if self._ear_at <= now:
                self._begin_stretch(now)
            else:
                self._drift.came(self._ear_at - now + seconds(len(self._held)))
        self._held += ulaw
        if self._correction:
            self._correct(now)
        if len(self._held) > self.held_most:
            self.held_most = len(self._held)
        return self.pace(now)

    def relay(self, ulaw: bytes, now: float) -> Relayed | None:
        """`add` without a list: what to play now, when that is all there is to do. None: nothing was done, `add` it."""
        ear_at, held = self._ear_at, self._held
        ahead = ear_at - now
        if self._paused or ahead <= 0 or self.dropped_bytes or self._correction:
            return None
        length = len(held) + len(ulaw)
        whole = length - length % FRAME_BYTES
        to_mark = self._marked + self._mark_every - self._sent
        if whole > int((self._lead - ahead) * BYTES_PER_S + 0.5) or whole >= to_mark + self._mark_every or to_mark % FRAME_BYTES:
            return None
        self._turn_over = False
        ahead += len(held) / BYTES_PER_S
        if length > self.held_most:
            self.held_most = length
        held += ulaw
        drift = self._drift
        drift.ahead = ahead
        if ahead < drift.least:
            drift.least = ahead
        if not whole:
            return NOTHING_YET
        sound = bytes(held[:whole])
        del held[:whole]
        if whole < to_mark:
            self._send(sound, now)
            return sound, "", b""
        before, after = sound[:to_mark], sound[to_mark:]
        self._send(before, now)
        mark = self._mark()
        if after:
            self._send(after, now)
        return before, mark, after

    def end_turn(self, now: float) -> list[Playing]:
        """No more sound follows: the remainder of a frame goes too, and a last mark tells when it was heard."""
        self._turn_over = True
        return self.pace(now)

    def hurry(self, now: float) -> list[Playing]:
        """Send what is here without waiting for a cushion."""
        self._filling_since = None
        return self.pace(now)

    def pace(self, now: float) -> list[Playing]:
        """Send what may be sent now. Call again at `next_send()`."""
        out: list[Playing] = []
        if self._paused or not self._cushioned(now):
            return out
        while (len(self._held) >= FRAME_BYTES or self._turn_over) and (chunk := self._next_chunk(now)):
            self._send(chunk, now)
            out.append(ToCaller(chunk))
            if self._sent - self._marked >= self._mark_every:
                out.append(MarkCaller(self._mark()))
        if self._turn_over and not self._held and self._marked < self._sent:
            out.append(MarkCaller(self._mark()))
        return out

    def next_send(self) -> float | None:
        """When `pace` has something to do; None while nothing is held or the voice is paused."""
        if self._paused or (len(self._held) < FRAME_BYTES and not (self._turn_over and self._held)):
            return None
        if self._filling_since is not None:
            return self._filling_since + self._longest_fill
        return self._ear_at - self._lead + PACE_STEP_S

    def mark_returned(self, name: str, now: float) -> bool:
        """True when it tells of this generation's sound; an older mark only says that a clear was carried out."""
        generation, _, played_ms = name.partition(":")
        if generation != str(self.generation) or not played_ms.isdecimal():
            return False
        self._clear_due = None
        position = int(played_ms) * BYTES_PER_S // 1000
        while self._marks and self._marks[0] <= position + 7:  # a last mark may stand inside a millisecond
            self._played, due = self._marks.popleft(), self._due.popleft()
            if not self._marks or self._marks[0] > position + 7:
                self._answered(now - due, now)
        del self._tail[: max(0, len(self._tail) - (self._sent - self._played))]
        return True

    def probe_sent(self, now: float) -> None:
        """A mark that stands for no sound: with an ear that has run dry it comes back at once."""
        if self._probe_due is None and now >= self._ear_at:
            self._probe_due = now

    def probe_returned(self, now: float) -> None:
        if self._probe_due is not None:
            self._lateness.answered(now - self._probe_due, now)
            self._probe_due = None

    # -- barge-in ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True

    def cut(self, now: float) -> MarkCaller:
        """Twilio is told to clear: a new generation. What was sent but not proven heard is kept, first in line.

        The mark, sent behind the clear, comes back when the caller hears silence.
        """
        self._surplus += self._heard_of_tail(now)
        self.taken_back_bytes += len(self._tail)
        self._held[:0] = self._tail
        self._begin_generation(now)
        if self._clear_due is None:
            self._clear_due = now
        return MarkCaller(f"{self.generation}:0")

    def drop(self) -> int:
        """What is held is gone and the next turn starts afresh; returns the bytes of it that were unheard.

        What no clear has taken from Twilio is heard there, and by no later barge-in once more.
        """
        unheard = max(0, len(self._held) - self._surplus)
        self.let_go_bytes += len(self._held)
        self._held.clear()
        self._tail.clear()
        self._filling_since = None
        self._surplus = 0
        self._turn_over = False
        self._paused = False
        self._measure_anew()
        return unheard

    def rest(self, now: float) -> bytes:
        """The sound that is here or at Twilio, and that the caller has not heard."""
        return bytes((self._tail[self._heard_of_tail(now) :] + self._held)[self._surplus :])

    def resume(self, now: float) -> list[Playing]:
        """It was nothing: play on from the last mark that came back as played."""
        self._paused = False
        self._surplus = 0
        self._measure_anew()
        return self.pace(now)

    # -- inside --------------------------------------------------------------------------------------------------

    def _heard_of_tail(self, now: float) -> int:
        return max(0, len(self._tail) - (self._sent - self.heard(now)))

    def _begin_generation(self, now: float) -> None:
        self.generation += 1
        self._sent = self._marked = self._played = 0
        self._marks.clear()
        self._due.clear()
        self._tail.clear()
        self._ear_at = now
        self._measure_anew()

    def _begin_stretch(self, now: float) -> None:
        """The ear has run dry, and sound begins to be gathered for it."""
        self._filling_since = now
        self._measure_anew()
        self._cushion = max(self._usual_cushion, self._lateness.cushion(now))
        self._lead = max(self._usual_lead, self._cushion)
        self._longest_fill = max(2 * self._usual_cushion, self._cushion)

    def _measure_anew(self) -> None:
        self._drift.forget()
        self._correction = 0.0

    def _answered(self, late_s: float, now: float) -> None:
        self._lateness.answered(late_s, now)
        wrong = self._drift.answered(late_s, now)
        if not wrong:
            return
        self._ear_at += self._drift.follow()
        self._correction, self._correct_by = wrong, now + PAUSE_WITHIN_S

    def _correct(self, now: float) -> None:
        """In the newest frame: what is first in line may have been sent before."""
        frame = bytes(self._held[-FRAME_BYTES:])
        if len(frame) < FRAME_BYTES or (now < self._correct_by and not splice.is_pause(frame)):
            return
        instead = splice.shorter(frame) if self._correction > 0 else splice.longer(frame)
        self._held[-FRAME_BYTES:] = instead
        self._correction = 0.0
        left_out = len(frame) - len(instead)
        self.left_out_bytes += max(0, left_out)
        self.repeated_bytes += max(0, -left_out)
        self._drift.corrected(left_out / BYTES_PER_S)

    def _cushioned(self, now: float) -> bool:
        """True unless sound is being gathered for an ear that ran dry. Nothing waits longer than two usual cushions, or a larger one."""
        since = self._filling_since
        if since is None:
            return True
        if seconds(len(self._held)) < self._cushion and not self._turn_over and now < since + self._longest_fill:
            return False
        if self._cushion > self._usual_cushion:
            self.held_back += 1
            self.held_back_most = max(self.held_back_most, int((now - since) * BYTES_PER_S))
        self._filling_since = None
        return True

    def _next_chunk(self, now: float) -> bytes:
        held, ahead = len(self._held), self._ear_at - now
        room = whole_frames(int((self._lead - ahead if ahead > 0 else self._lead) * BYTES_PER_S + 0.5))
        to_mark = max(FRAME_BYTES, whole_frames(self._marked + self._mark_every - self._sent))
        take = min(held, room, to_mark)
        if take < held or not self._turn_over:
            take -= take % FRAME_BYTES
        if take <= 0:
            return b""
        chunk = bytes(self._held[:take])
        del self._held[:take]
        return chunk

    def _send(self, chunk: bytes, now: float) -> None:
        length = len(chunk)
        self._sent += length
        self.sent_bytes += length
        self.sent_frames += 1
        self._tail += chunk
        if len(self._tail) > TAIL_LIMIT:  # marks that never return must not grow it
            del self._tail[:-TAIL_LIMIT]
        self._ear_at = (now if now > self._ear_at else self._ear_at) + length / BYTES_PER_S

    def _mark(self) -> str:
        """The name of a mark behind what was sent so far."""
        self._marked = self._sent
        self._marks.append(self._sent)
        self._due.append(self._ear_at)
        self._drift.marked()
        return f"{self.generation}:{ms(self._sent)}"
