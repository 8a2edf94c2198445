"""One inbound phone call as Twilio would carry it: webhook, TwiML, media stream, colleagues, voicemail, callbacks.

A strict stranger, written from Twilio's documents: it signs what it sends, obeys what it is told, and notes what the vendor's debugger
would show in `problems` and `violations`. Whoever looks at a finished `TwilioCall` sees the call from outside. Times are the loop's.

Moments in a timeline, for `wait_for`: dials, asks, document, answered, say, said, stream-connecting, stream-started, stream-refused,
stream-ended, hears-speech, heard, caller-says, presses, clear, dialling, ringing, bridged, colleague-gone, record, recorded, problem,
hung-up, ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from bridge.sandbox import sound, wav
from bridge.sandbox.clips import CLIPS, by_text, spoken_by
from bridge.sandbox.dial import Attempt, Dialling, Human
from bridge.sandbox.ear import Ear, Final, Recogniser
from bridge.sandbox.media import MediaSide, Pipe, StreamFacts, Violation
from bridge.sandbox.phone import Keypad, Moment, Phone, Tape
from bridge.sandbox.playout import Clear
from bridge.sandbox.script import Caller
from bridge.sandbox.twiml import TwimlError, Verb, parse, parse_whisper
from bridge.sandbox.web import Answer, Internet, Web, WebFailure, signature_headers

T = TypeVar("T")
ANSWER_WITHIN_S = 15.0
MAX_REDIRECTS = 10
MAX_DOCUMENTS = 60  # nobody's call needs more; a loop does
MS_PER_LETTER = 60  # of a <Say> nobody recorded
PLAYED_S = 2.0  # how long a <Play> lasts; the file is not fetched
STALLED_MS = 250  # a barge-in or a word is decided in less
AFTER_CLEAR_S = 0.4  # a new turn needs longer than this to begin
FALLBACK_WORDS = "We're sorry. An application error has occurred. Goodbye."
SIP_CODES = {"busy": "486", "no-answer": "487", "canceled": "487", "failed": "404"}
CALLER_LIVES = ("SAN FRANCISCO", "CA", "94105")
CALL_TOKEN = "%7B%22parentCallInfoToken%22%3A%22eyJhbGciOiJFUzI1NiJ9.e30.sig%22%2C%22identityHeaderTokens%22%3A%5B%5D%7D"  # noqa: S105
REDIRECTS = {301, 302, 303, 307, 308}


class HungUp(Exception):
    """The caller left."""


class _Over(Exception):
    """The document ended the call."""


class _Failed(Exception):
    """No document, no fallback: the caller hears Twilio's apology."""


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
    """One `<Record>`: what the box holds, mu-law, and why it stopped: silence, too-long, key, hangup."""

    sid: str
    ulaw: bytes
    why: str


@dataclass(frozen=True, slots=True)
class _Next:
    """A request for the next document."""

    url: str
    method: str = "POST"
    extra: Mapping[str, str] = field(default_factory=dict)


class TwilioCall:
    """Dials `to_number` for `caller` and carries the call to its end: `await call.run()`.

    `ear` listens to what is played to the caller (default: one that knows every clip of agent and human). `humans` by dialled number
    say who answers a `<Dial>`; `anyone` is everybody else. `voicemail` is the clip spoken after the beep, then the caller hangs up
    (None: stays silent). `duplicates` > 1 posts the first webhook so often at once, with one idempotency token. `web` is the network
    (default: real sockets). `algorithm`: sha1 with the auth token, sha256 with a shared key given as `auth_token`.
    """

    def __init__(
        self,
        *,
        webhook_url: str,
        auth_token: str,
        caller: Caller,
        ear: Recogniser | None = None,
        status_url: str = "",
        fallback_url: str = "",
        account_sid: str = "AC" + "1" * 32,
        from_number: str = "+14155550100",
        to_number: str = "+18005550199",
        algorithm: str = "sha1",
        humans: Mapping[str, Human] | None = None,
        anyone: Human | None = None,
        voicemail: str | None = "callback_message",
        duplicates: int = 1,
        allow_ws: bool = True,
        web: Web | None = None,
        rng: Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._webhook = _Next(webhook_url)
        self._token, self._algorithm = auth_token, algorithm
        self._status_url, self._fallback_url = status_url, fallback_url
        self.account_sid, self.from_number, self.to_number = account_sid, from_number, to_number
        self._humans, self._anyone = humans or {}, anyone or Human()
        self._voicemail, self._duplicates, self._allow_ws = voicemail, duplicates, allow_ws
        self._web = web or Internet()
        self._rng, self._wall = rng or Random(), wall
        self._loop = asyncio.get_running_loop()
        self.call_sid = self._sid("CA")
        self.phone = Phone(caller, ear or Ear(spoken_by("agent", "human")))
        self.status = "ringing"
        self.documents: list[Document] = []
        self.verbs: list[str] = []
        self.dials: list[Attempt] = []
        self.streams: list[StreamFacts] = []
        self.recordings: list[Recording] = []
        self.callbacks: list[Callback] = []
        self.problems: list[Problem] = []
        self._offences: list[Violation] = []
        self._side: MediaSide | None = None
        self._manner = "stop"
        self._base_url = webhook_url
        self._background: set[asyncio.Task[Any]] = set()
        self._answered_at: float | None = None
        self._callback_queue: asyncio.Task[None] | None = None

    # ---- the whole call

    async def run(self) -> TwilioCall:
        """Carry the call to its end, all callbacks delivered. Returns the call itself."""
        self.phone.remember("dials")
        ticking = asyncio.create_task(self.phone.run())
        try:
            try:
                await self._carry(ticking)
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
            self.phone.last_words()
            self.phone.remember("ended", status=self.status)
            self._callback(self._status_url, self._ending())
            while self._background:
                await asyncio.gather(*self._background, return_exceptions=True)
        finally:
            for task in self._background:
                task.cancel()
            await self._web.close()
        return self

    async def _carry(self, ticking: asyncio.Task[None]) -> None:
        leg = asyncio.create_task(self._follow(self._webhook))
        try:
            await asyncio.wait({leg, ticking}, return_when=asyncio.FIRST_COMPLETED)
            if not leg.done():
                ticking.result()  # the phone broke: say so
            await leg
        except (_Over, HungUp):
            pass
        except _Failed:
            with suppress(HungUp):
                await self._speak(sound.silence(len(FALLBACK_WORDS) * MS_PER_LETTER))
        finally:
            leg.cancel()
            await asyncio.gather(leg, return_exceptions=True)
        if self.status not in ("busy", "no-answer"):
            self.status = "completed"

    async def _follow(self, request: _Next | None) -> None:
        """Fetch and execute documents until one ends without asking for another."""
        while request is not None:
            verbs = await self._fetch(request)
            request = None
            for verb in verbs:
                self.verbs.append(verb.name)
                request = await self._execute(verb)
                if request is not None:
                    break

    # ---- what the caller can do, from outside the script

    def hang_up(self, manner: str = "stop") -> None:
        """The caller leaves now. `manner`: stop (politely), no-stop (`stop` is lost), vanish (the media socket is reset)."""
        self._manner = manner
        self.phone.hang_up()

    def break_stream(self) -> None:
        """The media socket is reset; the caller stays on the line and Twilio goes on with the document."""
        if self._side is not None:
            self._side.vanish()

    async def wait_for(self, what: str, *, within: float = 30.0) -> Moment:
        """The first moment of that name in the timeline, past or coming. Raises TimeoutError."""
        return await self.phone.wait_for(what, within=within)

    # ---- outside evidence

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
        return [*self._offences, *(violation for stream in self.streams for violation in stream.violations)]

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
        return self.phone.playout.heard(self.phone.origin, self.phone.origin + len(self.phone.said) / sound.RATE)

    def said_audio(self) -> bytes:
        """All the caller said since dialling, mu-law, silence included."""
        return bytes(self.phone.said)

    def write_wav(self, path: Path) -> Path:
        """The call as a stereo WAV: left the caller, right what the caller heard."""
        return wav.write(path, wav.stereo(self.said_audio(), self.heard_audio()))

    # ---- requests

    async def _fetch(self, request: _Next) -> list[Verb]:
        """The next document's verbs; the number's fallback URL when it cannot be had. Raises _Failed, HungUp."""
        try:
            return await self._verbs_of(request, parse)
        except (WebFailure, TwimlError) as error:
            self._problem(error.code, error.why, request.url)
            if not self._fallback_url or len(self.documents) >= MAX_DOCUMENTS:
                raise _Failed from error
            told = {"ErrorCode": str(error.code), "ErrorUrl": request.url}
        try:
            return await self._verbs_of(_Next(self._fallback_url, extra=told), parse)
        except (WebFailure, TwimlError) as error:
            self._problem(error.code, error.why, self._fallback_url)
            raise _Failed from error

    async def _verbs_of(
        self, request: _Next, reader: Callable[[bytes, str], list[Verb]], who: Mapping[str, str] | None = None
    ) -> list[Verb]:
        if len(self.documents) >= MAX_DOCUMENTS:
            raise TwimlError(11215, "documents go in a circle")
        params = {**(who or self._standard(first=not self.documents)), **request.extra}
        first = self.status == "ringing" and not self.documents and request is self._webhook
        copies = self._duplicates if first else 1
        token = {"I-Twilio-Idempotency-Token": self._sid("")}
        asked = [self._spawn(self._get(request, params, token)) for _ in range(copies)]
        answers = await self._while_up(_all(asked))
        document, *others = answers
        if any(other.body != document.body or other.status != document.status for other in others):
            self._problem(0, "the same request was answered differently", request.url)
        if document.status >= 400:
            raise WebFailure(11200, f"answered with {document.status}")
        verbs = reader(document.body, document.content_type)
        if who is None:
            self._base_url = document.url
            self._take_up(verbs)
        return verbs

    async def _get(self, request: _Next, params: Mapping[str, str], extra_headers: Mapping[str, str]) -> Document:
        """One document, redirects followed, 15 s for everything. Raises WebFailure."""
        url, method, asked = urljoin(self._base_url, request.url), request.method, self._loop.time()
        self.phone.remember("asks", url=url)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._send(method, url, params, extra_headers)
                    if answer.status not in REDIRECTS:
                        now = self._loop.time()
                        document = Document(url, answer.status, answer.content_type, answer.body, now, now - asked)
                        self.documents.append(document)
                        self.phone.remember("document", status=answer.status)
                        return document
                    url = urljoin(url, answer.location)
                    method = method if answer.status in (307, 308) else "GET"
        except TimeoutError as error:
            raise WebFailure(11205, "no answer within 15 s") from error
        raise WebFailure(11215, "more than ten redirects")

    async def _send(self, method: str, url: str, params: Mapping[str, str], extra_headers: Mapping[str, str]) -> Answer:
        """One signed request; tried again once if no connection could be made."""
        if method == "GET":
            parts = urlsplit(url)
            url, params = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(params)))))), {}
        headers = {**signature_headers(self._token, url, params, self._algorithm), **extra_headers}
        try:
            return await self._web.request(method, url, params, headers)
        except WebFailure as failure:
            if not failure.connecting:
                raise
        return await self._web.request(method, url, params, headers)

    def _standard(self, *, first: bool = False) -> dict[str, str]:
        """The fields of every request of this call; the first one carries ten more."""
        params = {
            "AccountSid": self.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": self.call_sid,
            "CallStatus": self.status,
            "Direction": "inbound",
            "From": self.from_number,
            "To": self.to_number,
            "Caller": self.from_number,
            "Called": self.to_number,
            **_place("From", *CALLER_LIVES),
            **_place("To"),
        }
        if first:
            params |= {
                **_place("Caller", *CALLER_LIVES),
                **_place("Called"),
                "CallToken": CALL_TOKEN,
                "StirVerstat": "TN-Validation-Passed-A",
            }
        return params

    def _callback(self, url: str, params: Mapping[str, str]) -> None:
        """Deliver a status callback without holding up the call; those of one call keep their order."""
        if url:
            self._callback_queue = self._spawn(self._deliver(url, params, self._callback_queue))

    async def _deliver(self, url: str, params: Mapping[str, str], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        answered = 0
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._send("POST", url, params, {"I-Twilio-Idempotency-Token": self._sid("")})
            answered = answer.status
            if not (answered == 204 or (answered == 200 and answer.content_type.split(";")[0] in ("text/xml", "application/xml"))):
                self._problem(11200, f"callback answered with {answered} {answer.content_type}", url)
        except WebFailure as failure:
            self._problem(failure.code, failure.why, url)
        except TimeoutError:
            self._problem(15002, "callback not answered within 15 s", url)
        self.callbacks.append(Callback(url, params, answered, self._loop.time()))

    # ---- verbs

    def _take_up(self, verbs: list[Verb]) -> None:
        """The call is answered by any first document that does not reject it."""
        if self.status == "ringing" and not (verbs and verbs[0].name == "Reject"):
            self.status = "in-progress"
            self._answered_at = self._loop.time()
            self.phone.remember("answered")
            self.phone.connected()

    async def _execute(self, verb: Verb) -> _Next | None:
        match verb.name:
            case "Say":
                await self._say(verb)
            case "Play":
                await self._speak(sound.tone(round(PLAYED_S * 1000)) if verb.text else sound.silence(300 * len(verb.get("digits"))))
            case "Pause":
                await self.wait(verb.seconds("length", 1))
            case "Redirect":
                return _Next(verb.text, verb.get("method", "POST"))
            case "Connect":
                return await self._connect(verb)
            case "Dial":
                return await self._dial(verb)
            case "Record":
                return await self._record(verb)
            case "Gather":
                return await self._gather(verb)
            case "Reject":
                self.status = "busy" if verb.get("reason") == "busy" else "no-answer"
                raise _Over
            case _:  # the parser lets nothing else but Hangup pass
                raise _Over
        return None

    async def _say(self, verb: Verb) -> None:
        self.phone.remember("say", text=verb.text)
        for _ in range(verb.seconds("loop", 1) or 1000):
            await self._speak(_spoken(verb.text))
        self.phone.remember("said", text=verb.text)

    async def _speak(self, ulaw: bytes) -> None:
        """Twilio's own voice in the caller's ear, to its end."""
        ends = self.phone.playout.play(ulaw, self._loop.time())
        try:
            await self.wait(ends - self._loop.time())
        except HungUp:
            self.phone.playout.stop(self._loop.time())
            raise

    async def _gather(self, verb: Verb) -> _Next | None:
        keypad = Keypad(wanted=verb.seconds("numDigits", 0), finish_on=verb.get("finishOnKey", "#"))
        self.phone.line = keypad
        try:
            await self._while_up(_until(keypad.finished, self._prompt(verb)))
            if not keypad.digits:
                await self._while_up(_until(keypad.finished, asyncio.sleep(verb.seconds("timeout", 5))))
        finally:
            self.phone.line = None
            self.phone.playout.stop(self._loop.time())
        if not keypad.digits:
            return None
        return _Next(verb.get("action") or self._base_url, verb.get("method", "POST"), {"Digits": keypad.digits})

    async def _prompt(self, verb: Verb) -> None:
        for child in verb.children:
            await self._execute(child)

    async def _record(self, verb: Verb) -> _Next | None:
        if verb.says("playBeep", True):
            await self._speak(sound.tone(400, hertz=1000.0))
        tape = Tape(
            silence_s=verb.seconds("timeout", 5), max_s=verb.seconds("maxLength", 3600), finish_on=verb.get("finishOnKey", "1234567890*#")
        )
        self.phone.line = tape
        self.phone.remember("record")
        message = self._spawn(self._leave_message())
        try:
            await self._while_up(tape.finished.wait())
            why = tape.why
        except HungUp:
            why = "hangup"
        finally:
            message.cancel()
            self.phone.line = None
        recording = Recording(self._sid("RE"), bytes(tape.ulaw), why)
        self.recordings.append(recording)
        self.phone.remember("recorded", why=why)
        if not tape.holds_sound:
            if why == "hangup":
                raise HungUp
            return None
        return await self._recorded(verb, recording, tape.digits)

    async def _recorded(self, verb: Verb, recording: Recording, digits: str) -> _Next:
        """Ask the action what is next; a caller who hung up is past hearing the answer, but the house is told."""
        fields = {
            "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{self.account_sid}/Recordings/{recording.sid}",
            "RecordingSid": recording.sid,
            "RecordingDuration": str(math.ceil(len(recording.ulaw) / sound.RATE)),
        }
        done = {"RecordingStatus": "completed", "RecordingChannels": "1", "RecordingSource": "RecordVerb", "RecordingTrack": "inbound"}
        about = {"AccountSid": self.account_sid, "CallSid": self.call_sid, **fields, **done}
        self._callback(verb.get("recordingStatusCallback"), about)
        if recording.why == "hangup":
            digits = "hangup"
        extra = {**fields, **({"Digits": digits} if digits else {})}
        action = _Next(verb.get("action") or self._base_url, verb.get("method", "POST"), extra)
        if recording.why != "hangup":
            return action
        self.status = "completed"
        try:
            parse((got := await self._get(action, {**self._standard(), **extra}, {})).body, got.content_type)
        except (WebFailure, TwimlError) as error:
            self._problem(error.code, error.why, action.url)
        raise HungUp

    async def _leave_message(self) -> None:
        """What the caller does at the beep."""
        if self._voicemail is None:
            return
        await asyncio.sleep(0.3)
        self.phone.say(self._voicemail)
        await asyncio.sleep(CLIPS[self._voicemail].ms / 1000 + 0.4)
        self.phone.hang_up()

    # ---- <Connect><Stream>

    async def _connect(self, verb: Verb) -> _Next | None:
        noun = verb.children[0]
        sid = self._sid("MZ")
        facts = StreamFacts(sid, started_at=self._loop.time())
        self.phone.remember("stream-connecting")
        try:
            pipe = await self._while_up(self._open(noun))
        except WebFailure as failure:
            facts.end = "refused"
            self.streams.append(facts)
            self._problem(failure.code, failure.why, noun.get("url"))
            self.phone.remember("stream-refused", code=failure.code)
            self._stream_event(noun, sid, "stream-error", f"{failure.code} Stream - WebSocket - {failure.why}")
        else:
            await self._stream(noun, sid, pipe)
        action = verb.get("action")
        return _Next(action, verb.get("method", "POST")) if action else None

    async def _open(self, noun: Verb) -> Pipe:
        """The signed upgrade. Raises WebFailure."""
        url = noun.get("url")
        if not urlsplit(url).scheme:
            url = "ws" + urljoin(self._base_url, url).removeprefix("http")
        parts = urlsplit(url)
        if parts.scheme != "wss" and not (self._allow_ws and parts.scheme == "ws"):
            raise WebFailure(31922, "stream URL is not wss")
        if parts.query or parts.fragment:
            raise WebFailure(31920, "stream URL carries a query")
        pipe = await self._web.socket(url, signature_headers(self._token, url, {}, self._algorithm))
        if pipe.extensions:
            self._offences.append(Violation(31924, "server agreed to compression", self._loop.time()))
        return pipe

    async def _stream(self, noun: Verb, sid: str, pipe: Pipe) -> None:
        side = MediaSide(
            pipe,
            self.phone,
            stream_sid=sid,
            call_sid=self.call_sid,
            account_sid=self.account_sid,
            parameters={child.get("name"): child.get("value") for child in noun.children},
            first_timestamp_ms=self._rng.randint(59, 79),
        )
        self._side = side
        self.streams.append(side.facts)
        self._stream_event(noun, sid, "stream-started")
        self.phone.remember("stream-started")
        try:
            await self._while_up(side.run())
        except HungUp:
            if self._manner == "vanish":
                side.vanish()
            else:
                await side.leave(stop=self._manner == "stop")
            raise
        finally:
            self._side = None
            facts = side.facts
            self.phone.remember("stream-ended", how=facts.end, code=facts.close_code)
            if facts.end in ("broken", "vanished"):
                self._stream_event(noun, sid, "stream-error", "31903 Stream - WebSocket - Broken Pipe")
            else:
                self._stream_event(noun, sid, "stream-stopped")

    def _stream_event(self, noun: Verb, sid: str, event: str, error: str = "") -> None:
        now = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        params = {"AccountSid": self.account_sid, "CallSid": self.call_sid, "StreamSid": sid, "StreamName": noun.get("name") or sid}
        params |= {"StreamEvent": event, "Timestamp": now, **({"StreamError": error} if error else {})}
        self._callback(noun.get("statusCallback"), params)

    # ---- <Dial>

    async def _dial(self, verb: Verb) -> _Next | None:
        caller_id = verb.get("callerId") or self.from_number
        if caller_id not in (self.from_number, self.to_number):
            self._problem(13214, "caller ID is neither number of this call", self._base_url)
        dialling = Dialling(
            self,
            verb,
            caller_id=caller_id,
            humans=lambda number: self._humans.get(number, self._anyone),
            clock=self._loop.time,
            clips={name: clip.ulaw for name, clip in CLIPS.items()},
        )
        try:
            deciding = await dialling.run()
        finally:
            self.dials += dialling.attempts
        if not verb.get("action"):
            return None
        fields = {"DialCallStatus": deciding.status, "DialCallSid": deciding.call_sid, "DialBridged": str(deciding.bridged).lower()}
        if deciding.status == "completed":
            fields["DialCallDuration"] = str(deciding.duration_s)
        return _Next(verb.get("action"), verb.get("method", "POST"), fields)

    async def whisper(self, attempt: Attempt, noun: Verb, human: Human) -> bool:
        """What who answered hears before being joined. False when that document hangs up, or fails."""
        try:
            request: _Next | None = _Next(noun.get("url"), noun.get("method", "POST"))
            while request is not None:
                request = await self._whispered(request, attempt, human)
        except (WebFailure, TwimlError) as error:
            self._problem(error.code, error.why, noun.get("url"))
            return False
        except _Over:
            return False
        return True

    async def _whispered(self, request: _Next, attempt: Attempt, human: Human) -> _Next | None:
        for verb in await self._verbs_of(request, parse_whisper, self._child(attempt)):
            self.verbs.append(f"whisper:{verb.name}")
            if verb.name == "Hangup":
                raise _Over
            for said in verb.children if verb.name == "Gather" else (verb,):
                attempt.whispered.append(said.text)
                await self.wait(len(_spoken(said.text)) / sound.RATE)
            if verb.name == "Gather" and human.presses:
                return _Next(verb.get("action") or request.url, verb.get("method", "POST"), {"Digits": human.presses})
            if verb.name == "Gather":
                await self.wait(verb.seconds("timeout", 5))
        return None

    def child_event(self, attempt: Attempt, noun: Verb | None, status: str) -> None:
        """A step of the child leg: delivered when the noun asked for it."""
        if noun is None or attempt.events[-1] not in noun.get("statusCallbackEvent", "completed").split(" "):
            return
        params = {**self._child(attempt), **self._progress(len(attempt.events) - 1)}
        if attempt.events[-1] == "completed":
            params |= _duration(attempt.duration_s)
            if status in SIP_CODES:
                params["SipResponseCode"] = SIP_CODES[status]
        self._callback(noun.get("statusCallback"), params)

    def _child(self, attempt: Attempt) -> dict[str, str]:
        return {
            "AccountSid": self.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": attempt.call_sid,
            "ParentCallSid": self.call_sid,
            "CallStatus": attempt.status,
            "Direction": "outbound-dial",
            "From": attempt.caller_id,
            "To": attempt.number,
            "Caller": attempt.caller_id,
            "Called": attempt.number,
        }

    # ---- shared

    def new_call_sid(self) -> str:
        return self._sid("CA")

    async def wait(self, seconds: float) -> None:
        await self._while_up(asyncio.sleep(max(seconds, 0)))

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._while_up(work)

    async def _while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """Work that ends, cancelled, when the caller hangs up. Raises HungUp then."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self.phone.hung_up.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not gone.done():
                return task.result()
            raise HungUp
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    def _ending(self) -> dict[str, str]:
        seconds = 0 if self._answered_at is None else math.ceil(self._loop.time() - self._answered_at)
        return {**self._standard(), **_duration(seconds), **self._progress(0)}

    def _progress(self, number: int) -> dict[str, str]:
        now = format_datetime(datetime.fromtimestamp(self._wall(), UTC))
        return {"Timestamp": now, "CallbackSource": "call-progress-events", "SequenceNumber": str(number)}

    def _problem(self, code: int, why: str, url: str) -> None:
        self.problems.append(Problem(code, why, url, self._loop.time()))
        self.phone.remember("problem", code=code, why=why)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that outlives a caller who hangs up; `run` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _sid(self, prefix: str) -> str:
        return f"{prefix}{self._rng.getrandbits(128):032x}"


def _place(who: str, city: str = "", state: str = "", code: str = "") -> dict[str, str]:
    return {f"{who}City": city, f"{who}State": state, f"{who}Zip": code, f"{who}Country": "US"}


def _duration(seconds: int) -> dict[str, str]:
    return {"CallDuration": str(seconds), "Duration": str(math.ceil(seconds / 60))}


def _spoken(text: str) -> bytes:
    """The words of a <Say>: a clip with exactly that text, else silence as long as they would take."""
    clip = by_text(text)
    return clip.ulaw if clip is not None else sound.silence(len(text) * MS_PER_LETTER)


async def _all(tasks: list[asyncio.Task[Document]]) -> list[Document]:
    """All results; the first failure is raised. Cancelling this leaves the tasks alone: a request sent is a request sent."""
    return list(await asyncio.shield(asyncio.gather(*tasks)))


async def _until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Work that ends, cancelled, once the event is set."""
    task, done = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, done}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, done):
            each.cancel()
        await asyncio.gather(task, done, return_exceptions=True)
