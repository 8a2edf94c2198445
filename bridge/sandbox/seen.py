"""What was seen of one call from outside: the evidence by which others judge it. Nothing here acts.

Times are the running loop's, except those called wall, which are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.sandbox import sound, wav
from bridge.sandbox.dial import Attempt
from bridge.sandbox.ear import Final
from bridge.sandbox.media import StreamFacts, Violation
from bridge.sandbox.phone import Moment, Phone
from bridge.sandbox.playout import Clear, sound_samples

AFTER_CLEAR_S = 0.4  # a new turn needs longer than this to begin


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry of the debugger that is no stream message: a URL that failed, a document that cannot be executed."""

    code: int
    why: str
    url: str
    at: float


@dataclass(frozen=True, slots=True)
class Document:
    """TwiML as it was received. `took_s`: from the request to the last byte, redirects included."""

    url: str
    status: int
    content_type: str
    body: bytes
    at: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Callback:
    """A status callback and the HTTP status it got; 0 when there was no answer."""

    url: str
    params: Mapping[str, str]
    answered: int
    at: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished recording, both tracks mu-law: `ulaw` what the caller said, `heard` what the caller heard (empty for a `<Record>`).

    `why` it stopped: silence, too-long, key, hangup, turned; a recording of the whole call ends with it (over), or is stopped before.
    """

    sid: str
    ulaw: bytes
    why: str
    heard: bytes = b""
    channels: int = 1
    source: str = "RecordVerb"
    track: str = "inbound"
    wall: float = 0.0  # when it began

    @property
    def seconds(self) -> float:
        return max(len(self.ulaw), len(self.heard)) / sound.RATE

    @property
    def silent(self) -> bool:
        """Nothing is on it: Twilio calls it absent."""
        return sound_samples(self.ulaw) + sound_samples(self.heard) == 0

    def wav(self) -> bytes:
        """The file: left the caller, right what the caller heard; with one channel, both mixed."""
        return wav.stereo(self.ulaw, self.heard) if self.channels == 2 else wav.mono(self.ulaw, self.heard)


class Seen:
    """One call as its witnesses saw it."""

    def __init__(self, phone: Phone, *, wall: float) -> None:
        self.phone = phone
        self.status = "ringing"
        self.dialled_wall = wall
        self.ended_wall: float | None = None
        self.answered_at: float | None = None
        self.duration_s = 0  # from the answer to the end, the last second counted whole
        self.documents: list[Document] = []
        self.verbs: list[str] = []
        self.dials: list[Attempt] = []
        self.streams: list[StreamFacts] = []
        self.recordings: list[Recording] = []
        self.callbacks: list[Callback] = []
        self.problems: list[Problem] = []
        self.offences: list[Violation] = []  # of streams that never started

    @property
    def over(self) -> bool:
        """Nothing can be done to this call any more, although its last callbacks may still be under way."""
        return self.status not in ("ringing", "in-progress") or self.phone.hung_up.is_set()

    @property
    def timeline(self) -> list[Moment]:
        return self.phone.timeline

    @property
    def heard(self) -> list[Final]:
        """What the caller understood of what was played: clip names with `heard_to_ms`; clip None is speech nobody knows."""
        return self.phone.heard

    @property
    def late_ms(self) -> int:
        """The longest the machine kept this phone waiting for its next 20 ms: above STALLED_MS a live call says nothing of the bridge."""
        return round(self.phone.late_s * 1000)

    @property
    def violations(self) -> list[Violation]:
        """Every stream message Twilio would have warned about."""
        return [*self.offences, *(violation for stream in self.streams for violation in stream.violations)]

    @property
    def clears(self) -> list[Clear]:
        return self.phone.playout.clears

    @property
    def sound_after_clears_ms(self) -> list[int]:
        """For each `clear`, the ms of audible audio the caller still heard in the 400 ms after it arrived."""
        return [self.phone.playout.sound_ms(clear.at, clear.at + AFTER_CLEAR_S) for clear in self.clears]

    @property
    def first_sound_ms(self) -> int | None:
        """From the first stream's start to the first audible sample of it; None when there was none."""
        if not self.streams or self.streams[0].first_media_at is None:
            return None
        started = self.streams[0].started_at
        first = self.phone.playout.first_sound(started)
        return None if first is None else round((first - started) * 1000)

    def heard_audio(self) -> bytes:
        """All the caller heard since dialling, mu-law, silence included."""
        return self.heard_since(0)

    def heard_since(self, sample: int) -> bytes:
        """What the caller heard from this sample of the call on."""
        origin = self.phone.origin
        return self.phone.playout.heard(origin + sample / sound.RATE, origin + len(self.phone.said) / sound.RATE)

    def said_audio(self) -> bytes:
        """All the caller said since dialling, mu-law, silence included."""
        return bytes(self.phone.said)

    def write_wav(self, path: Path) -> Path:
        """The call as a stereo WAV: left the caller, right what the caller heard."""
        return wav.write(path, wav.stereo(self.said_audio(), self.heard_audio()))

    def problem(self, code: int, why: str, url: str) -> None:
        """Write something into the debugger."""
        self.problems.append(Problem(code, why, url, self.phone.now()))
        self.phone.remember("problem", code=code, why=why)
