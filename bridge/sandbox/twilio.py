"""One inbound phone call as Twilio would carry it: webhook, TwiML, media stream, colleagues, voicemail, callbacks.

A strict stranger, written from Twilio's documents: it signs what it sends, obeys what it is told, and notes what the vendor's debugger
would show in `problems` and `violations`. Whoever looks at a finished `TwilioCall` sees the call from outside. Times are the loop's.

Moments in a timeline, for `wait_for`: dials, asks, document, answered, say, said, stream-connecting, stream-started, stream-refused,
stream-slow, stream-half-open, stream-ended, hears-speech, heard, caller-says, presses, clear, dialling, ringing, bridged, colleague-gone,
record, records, recorded, turned, problem, hung-up, ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random

from bridge.sandbox import fields, recording, sound
from bridge.sandbox.asking import Asking, Next
from bridge.sandbox.callbacks import Callbacks
from bridge.sandbox.clips import spoken_by
from bridge.sandbox.dial import Human
from bridge.sandbox.ear import Ear, Recogniser
from bridge.sandbox.errands import Errands
from bridge.sandbox.leg import Ended, Interrupted, Leg, Manners, Turned, new_sid
from bridge.sandbox.phone import Moment, Phone
from bridge.sandbox.program import NoDocument, Program
from bridge.sandbox.script import Caller
from bridge.sandbox.seen import Recording, Seen
from bridge.sandbox.streaming import AFTER_ABNORMAL_CLOSE, LEAVING
from bridge.sandbox.verbs import MS_PER_LETTER
from bridge.sandbox.web import Internet, Web

STALLED_MS = 400  # what a caller says, and when, survives less
FALLBACK_WORDS = "We're sorry. An application error has occurred. Goodbye."


class TwilioCall(Seen):
    """Dials `to_number` for `caller` and carries the call to its end: `await call.run()`.

    `ear` listens to what is played to the caller (default: one that knows every clip of agent and human). `humans` by dialled number
    say who answers a `<Dial>`; `anyone` is everybody else. `voicemail` is the clip spoken after the beep, then the caller hangs up
    (None: stays silent). `duplicates` > 1 posts the first webhook so often at once, with one idempotency token. `web` is the network
    (default: real sockets). `algorithm`: sha1 with the auth token, sha256 with a shared key given as `auth_token`.

    What may go wrong: `callbacks` as-usual, none, twice, late or backwards. The first stream may stop reading `slow_reader_after_s`
    seconds after its start, for `slow_reader_for_s`, or become half-open after `half_open_after_s`: it then neither sends nor reads nor
    closes, until the server lets go of the socket. `on_abnormal_close`: after a stream whose socket died, Twilio goes on with the
    next_verb, lets the caller stay in silence, or does a hangup.
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
        callbacks: str = "as-usual",
        half_open_after_s: float | None = None,
        slow_reader_after_s: float | None = None,
        slow_reader_for_s: float = 10.0,
        on_abnormal_close: str = "next_verb",
        web: Web | None = None,
        rng: Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if on_abnormal_close not in AFTER_ABNORMAL_CLOSE:
            raise ValueError(f"After an abnormal close comes {', '.join(AFTER_ABNORMAL_CLOSE)}: not {on_abnormal_close}.")
        super().__init__(Phone(caller, ear or Ear(spoken_by("agent", "human"))), wall=wall())
        rng = rng or Random()
        self.call_sid = new_sid(rng, "CA")
        self.account_sid, self.from_number, self.to_number = account_sid, from_number, to_number
        self._status_url, self._wall = status_url, wall
        self._web, self._errands = web or Internet(), Errands()
        asking = Asking(
            seen=self,
            web=self._web,
            errands=self._errands,
            auth_token=auth_token,
            algorithm=algorithm,
            base_url=webhook_url,
            fresh=lambda: new_sid(rng, ""),
        )
        self._callbacks = Callbacks(seen=self, asking=asking, errands=self._errands, manner=callbacks)
        self._leg = Leg(
            seen=self,
            parties=fields.Parties(account_sid, self.call_sid, from_number, to_number),
            asking=asking,
            callbacks=self._callbacks,
            errands=self._errands,
            manners=Manners(allow_ws, half_open_after_s, slow_reader_after_s, slow_reader_for_s, on_abnormal_close),
            humans=humans or {},
            anyone=anyone or Human(),
            voicemail=voicemail,
            rng=rng,
            wall=wall,
        )
        self._program = Program(self._leg, webhook=Next(webhook_url), fallback_url=fallback_url, copies=duplicates)

    async def run(self) -> TwilioCall:
        """Carry the call to its end, all callbacks delivered and all sockets gone. Returns the call itself."""
        self.phone.remember("dials")
        ticking = asyncio.create_task(self.phone.run())
        try:
            try:
                await self._carry(ticking)
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
            self._end()
            await self._errands.finished()
        finally:
            self._errands.drop()
            await self._web.close()
        return self

    async def _carry(self, ticking: asyncio.Task[None]) -> None:
        executing = asyncio.create_task(self._program.run())
        try:
            await asyncio.wait({executing, ticking}, return_when=asyncio.FIRST_COMPLETED)
            if not executing.done():
                ticking.result()  # the phone broke: say so
            await executing
        except Interrupted:
            pass
        except NoDocument:
            with suppress(Interrupted):
                await self._leg.speak(sound.silence(len(FALLBACK_WORDS) * MS_PER_LETTER))
        finally:
            executing.cancel()
            await asyncio.gather(executing, return_exceptions=True)

    def _end(self) -> None:
        self.ended_wall = self._wall()
        self.duration_s = 0 if self.answered_at is None else math.ceil(self.phone.now() - self.answered_at)
        if self.status not in ("busy", "no-answer"):
            self.status = "completed"
        self.phone.last_words()
        self.phone.remember("ended", status=self.status)
        form = fields.ending(self._leg.parties, self.status, seconds=self.duration_s, wall=self.ended_wall)
        self._callbacks.tell(self._status_url, form)
        recording.finish(self._leg)
        self._callbacks.call_is_over()

    # ---- what can be done to it, from outside the script

    def hang_up(self, manner: str = "stop") -> None:
        """The caller leaves now. `manner`: stop (politely), no-stop (`stop` is lost), vanish (the media socket is reset), half-open.

        A half-open media socket stays open, mute, until the server lets go of it; `run` returns then.
        """
        if manner not in LEAVING:
            raise ValueError(f"A caller leaves with {', '.join(LEAVING)}: not {manner}.")
        self._leg.leaving = manner
        self.phone.hang_up()

    def break_stream(self) -> None:
        """The media socket is reset; the caller stays on the line and Twilio goes on as `on_abnormal_close` says."""
        if self._leg.side is not None:
            self._leg.side.vanish()

    def end(self) -> None:
        """The REST API ends the call."""
        self.phone.remember("turned", to="completed")
        self._leg.interrupt(Ended())

    def turn(self, url: str = "", *, method: str = "POST", twiml: str = "") -> None:
        """The REST API sends the call to another document, given by its URL or itself."""
        self.phone.remember("turned", to="a document")
        self._leg.interrupt(Turned(Next(url, method, twiml=twiml)))

    def stop_recording(self, sid: str = "") -> Recording | None:
        """The REST API stops this recording of the call, or the one that began last; the call goes on. None: there is none."""
        return recording.stop(self._leg, sid)

    async def wait_for(self, what: str, *, within: float = 30.0) -> Moment:
        """The first moment of that name in the timeline, past or coming. Raises TimeoutError."""
        return await self.phone.wait_for(what, within=within)
