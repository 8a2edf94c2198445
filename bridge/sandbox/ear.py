"""Hears what was really said: finds known clips in whatever audio arrived.

It is fed mu-law in any chunking and knows nothing of the script. Speech is found by its level, 20 ms at a time; which clip
it is, and where in it we are, by normalised correlation of the waveform: at the start of speech against the beginnings of
all clips, later only against the place where the clip should be by now. So silence put in or left out, a missing start and a
cut end are followed, and a wrong voice or a wrong clip is simply not recognised. Lengths are bytes, 8 to the millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from bridge.sandbox import sound
from bridge.sandbox.atlas import Atlas, Wave, best_fit, likeness, power_of
from bridge.sandbox.clips import Clip

SPEECH_DB = -42.0  # louder than this is speech
START_FRAMES = 2  # so many loud frames in a row start an utterance
PREROLL = 3 * sound.FRAME  # kept from before the start: soft consonants
END_MS = 240  # quiet for so long after a clip's last word: it was said to its end
PATIENCE_MS = 700  # quiet for so long inside a clip: it was cut there (longer than any pause inside a clip)
UNKNOWN_END_MS = 480  # quiet for so long after speech nobody knows

WINDOW = 800  # followed in steps of 100 ms
ONSET = 2400  # of speech needed to recognise a clip by its start
RETRIES = (5600, 12_000, 24_000)  # lengths of still unknown speech at which all of every clip is searched
SAME = 0.75  # correlation from which on two pieces of audio are the same ...
SAME_IN_SHORT = 0.9  # ... and two pieces shorter than ONSET: one with a splice is as like to some other clip as 0.88
DRIFT = 4800  # a clip that jumped is looked for so far to either side
LOST_WINDOWS = 3  # windows in a row that are something else: the clip is over
TAIL_MS = 150  # a clip heard up to here before its end was heard to its end
JITTER = 1200  # a clip that jumped is looked for this near first


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak; `at` is two loud frames after the first sound."""

    at: float


@dataclass(frozen=True, slots=True)
class Partial:
    """The words so far. `started_at` is when the clip's own beginning was (or would have been) heard, so position = at - started_at."""

    clip_name: str
    text: str
    at: float
    started_at: float


@dataclass(frozen=True, slots=True)
class Final:
    """An utterance is over. Unknown speech has clip_name None and no text.

    `heard_from_ms` and `heard_to_ms` are places in the clip; `complete` when that is all of it, and then `text` is the clip's
    text, else the words in between. `ended_at` is when the last sound was heard; `at`, when silence made it certain.
    `score` is the share of the sound (by power) that was the clip, 0 to 1.
    """

    clip_name: str | None
    text: str
    at: float
    started_at: float
    ended_at: float
    score: float
    heard_from_ms: int = 0
    heard_to_ms: int = 0
    complete: bool = False


Utterance = SpeechStarted | Partial | Final


class Recogniser(Protocol):
    """What the sandbox vendors need of an ear."""

    @property
    def voiced_ms(self) -> int: ...

    def hear(self, ulaw: bytes, at: float) -> list[Utterance]: ...

    def close(self, at: float) -> list[Utterance]: ...


def words_heard(text: str, ms: int, *, of_ms: int) -> int:
    """How many words of a text that lasts `of_ms` are said after `ms`, by their share of its letters."""
    said = 0
    letters = 0
    for word in text.split():
        letters += len(word) + 1
        if letters / (len(text) + 1) * of_ms > ms + 40:
            break
        said += 1
    return said


_atlas_of = lru_cache(maxsize=8)(Atlas)


@dataclass(slots=True)
class _Track:
    """A recognised clip within an utterance: byte p of the utterance is byte p + lag of the clip."""

    clip: int
    lag: int
    heard_from: int
    heard_to: int
    zero_at: float  # when byte 0 of the clip was, or would have been, heard
    good: float = 0.0
    missed: float = 0.0
    missed_run: int = 0
    words: int = 0


class Ear:
    """One listener on one direction of a call. Not shared between calls."""

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        self._atlas = _atlas_of(tuple(clips.values()))
        self._rest = b""
        self._before = bytearray()
        self._loud_run = 0
        self._speaking = False
        self._reset()

    def _reset(self) -> None:
        self._audio = bytearray()
        self._quiet_frames = 0
        self._voiced_frames = 0
        self._followed = 0
        self._tried = 0
        self._track: _Track | None = None
        self._started_at = 0.0
        self._last_sound_at = 0.0

    @property
    def voiced_ms(self) -> int:
        """How long the present utterance has been loud, in ms; 0 while nobody speaks."""
        return self._voiced_frames * 20 if self._speaking else 0

    def hear(self, ulaw: bytes, at: float) -> list[Utterance]:
        """What became clear with this audio, whose last byte was heard at `at` (seconds of any clock).

        Any length. Feed silence too: what was never fed did not last.
        """
        if ulaw == sound.SILENT_FRAME and not self._speaking and not self._rest:
            self._loud_run = 0
            self._keep(ulaw)
            return []
        data = self._rest + ulaw if self._rest else ulaw
        whole = len(data) - len(data) % sound.FRAME
        self._rest = data[whole:]
        found: list[Utterance] = []
        for start in range(0, whole, sound.FRAME):
            when = at - (len(data) - start - sound.FRAME) / sound.RATE
            frame = data[start : start + sound.FRAME]
            self._frame(frame, when, found)
        return found

    def close(self, at: float) -> list[Utterance]:
        """The line is gone: what was being said, as far as it was heard."""
        found: list[Utterance] = []
        if self._speaking:
            self._finish(at, found)
        return found

    def _keep(self, frame: bytes) -> None:
        self._before += frame
        del self._before[: -PREROLL - START_FRAMES * sound.FRAME]

    def _frame(self, frame: bytes, at: float, found: list[Utterance]) -> None:
        loud = frame != sound.SILENT_FRAME and sound.energy_db(frame) > SPEECH_DB
        if not self._speaking:
            self._keep(frame)
            self._loud_run = self._loud_run + 1 if loud else 0
            if self._loud_run >= START_FRAMES:
                self._start(bytes(self._before), at)
                found.append(SpeechStarted(at))
            return
        self._audio += frame
        if loud:
            self._quiet_frames = 0
            self._voiced_frames += 1
            self._last_sound_at = at
        else:
            self._quiet_frames += 1
        self._recognise(at, found)
        if self._speaking and self._quiet_frames * 20 >= self._patience_ms():
            self._finish(at, found)

    def _start(self, audio: bytes, at: float) -> None:
        self._reset()
        self._speaking = True
        self._audio += audio
        self._voiced_frames = self._loud_run
        self._started_at = at - self._loud_run * sound.FRAME_S
        self._last_sound_at = at

    def _patience_ms(self) -> int:
        if self._track is None:
            return UNKNOWN_END_MS
        clip = self._atlas.clips[self._track.clip]
        return END_MS if self._track.heard_to >= len(clip.ulaw) - TAIL_MS * 8 else PATIENCE_MS

    def _recognise(self, at: float, found: list[Utterance]) -> None:
        if self._track is None:
            self._look(at)
        if self._track is None:
            return
        while self._followed + WINDOW <= len(self._audio):
            self._follow(self._followed)
            self._followed += WINDOW
            if self._track.missed_run >= LOST_WINDOWS:
                self._leave_track(at, found)
                return
            self._tell_words(self._track, at, found)

    def _look(self, at: float) -> None:
        """Try to recognise unknown speech: by its start as soon as possible, by any part of any clip later."""
        length = len(self._audio)
        if self._tried == 0 and length >= ONSET:
            self._tried = ONSET
            self._found(*self._atlas.by_start(self._wave(length - ONSET, length)), length - ONSET, at)
        elif due := next((each for each in RETRIES if self._tried < each <= length), 0):
            self._tried = due
            self._found(*self._atlas.anywhere(self._wave(length - ONSET, length)), length - ONSET, at)

    def _found(self, clip: int, place: int, score: float, start: int, at: float) -> None:
        if score < SAME:
            return
        lag = place - start
        zero_at = at - (len(self._audio) + lag) / sound.RATE
        self._track = _Track(clip=clip, lag=lag, heard_from=max(lag, 0), heard_to=max(lag, 0), zero_at=zero_at)
        self._followed = max(-lag, 0) if start else 0  # a clip that begins later in the utterance is not looked for before

    def _wave(self, start: int, end: int) -> Wave:
        return sound.decode(bytes(self._audio[start:end])).astype(np.float32)

    def _follow(self, start: int) -> None:
        """Compare 100 ms of the utterance with the place in the clip where it should be by now."""
        track = self._track
        assert track is not None  # noqa: S101
        heard = self._wave(start, min(start + WINDOW, len(self._audio)))
        power = float(heard @ heard) / len(heard)
        if power < 1e4:  # softer than 50 dB below full scale: a pause tells nothing
            return
        there = self._atlas.piece(track.clip, start + track.lag, len(heard))
        if likeness(heard, there) >= SAME:
            self._count(track, start + len(heard), power)
            return
        part = self._common_start(heard, there)
        if part:
            track.heard_to = max(track.heard_to, start + track.lag + part)
        for reach in (JITTER, DRIFT):
            around = start + track.lag - reach
            region = self._atlas.piece(track.clip, around, 2 * reach + WINDOW)
            place, score = best_fit(region, power_of(region), heard)
            if score >= SAME:
                track.lag = around + place - start
                self._count(track, start + len(heard), power)
                return
        track.missed += power
        track.missed_run += 1

    def _count(self, track: _Track, end: int, power: float) -> None:
        track.good += power
        track.missed_run = 0
        track.heard_to = max(track.heard_to, end + track.lag)

    @staticmethod
    def _common_start(heard: Wave, there: Wave) -> int:
        """How much of the start of two pieces is the same, in steps of 20 ms."""
        for start in range(0, len(heard) - sound.FRAME + 1, sound.FRAME):
            if likeness(heard[start : start + sound.FRAME], there[start : start + sound.FRAME]) < SAME:
                return start
        return len(heard)

    def _leave_track(self, at: float, found: list[Utterance]) -> None:
        """The clip was cut and something else goes on without a pause: that is a new utterance."""
        assert self._track is not None  # noqa: S101
        rest = bytes(self._audio[self._followed - LOST_WINDOWS * WINDOW :])
        found.append(self._final(at))
        self._start(rest, at)
        self._voiced_frames = len(rest) // sound.FRAME
        self._started_at = at - len(rest) / sound.RATE
        found.append(SpeechStarted(at))

    def _tell_words(self, track: _Track, at: float, found: list[Utterance]) -> None:
        """Say that there are new words; the last one is left to the Final."""
        if track.good == 0.0:
            return
        clip = self._atlas.clips[track.clip]
        words = words_heard(clip.text, track.heard_to // 8, of_ms=clip.ms)
        spoken = clip.text.split()
        if track.words < words < len(spoken):
            track.words = words
            first = words_heard(clip.text, track.heard_from // 8, of_ms=clip.ms) if track.heard_from > TAIL_MS * 8 else 0
            found.append(Partial(clip.name, " ".join(spoken[first:words]), at, track.zero_at))

    def _finish(self, at: float, found: list[Utterance]) -> None:
        if self._track is None:
            self._last_look(at)
        if self._track is not None and self._followed < len(self._audio):
            for start in range(self._followed, len(self._audio), WINDOW):
                self._follow(start)
        found.append(self._final(at))
        self._speaking = False
        self._loud_run = 0
        self._before.clear()
        self._reset()

    def _last_look(self, at: float) -> None:
        """An utterance shorter than ONSET, or one whose start was unclear: judge all of it, up to 0.6 s."""
        spoken = self._wave(0, max(len(self._audio) - self._quiet_frames * sound.FRAME, sound.FRAME))[: 2 * ONSET]
        if len(spoken) >= ONSET // 2:
            clip, place, score = self._atlas.anywhere(spoken)
            if len(spoken) >= ONSET or score >= SAME_IN_SHORT:
                self._found(clip, place, score, 0, at)

    def _final(self, at: float) -> Final:
        track = self._track
        unknown = Final(None, "", at, self._started_at, self._last_sound_at, 0.0)
        if track is None or track.good == 0.0:
            return unknown
        score = track.good / (track.good + track.missed)
        if score < 0.5:
            return unknown
        clip = self._atlas.clips[track.clip]
        heard_to = min(track.heard_to // 8, clip.ms)
        heard_from = min(track.heard_from // 8, clip.ms)
        complete = heard_from <= TAIL_MS and heard_to >= clip.ms - TAIL_MS
        text = clip.text
        if not complete:
            first = words_heard(clip.text, heard_from, of_ms=clip.ms) if heard_from > TAIL_MS else 0
            last = words_heard(clip.text, heard_to, of_ms=clip.ms) if heard_to < clip.ms - TAIL_MS else None
            text = " ".join(clip.text.split()[first:last])
        return Final(clip.name, text, at, self._started_at, self._last_sound_at, round(score, 3), heard_from, heard_to, complete)
