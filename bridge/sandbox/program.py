"""The call's way from document to document: fetch, execute verb by verb, go where one of them or the REST API points to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bridge.sandbox import forwarding, recording, streaming, verbs
from bridge.sandbox.asking import MAX_DOCUMENTS, Next
from bridge.sandbox.leg import Leg, Turned
from bridge.sandbox.twiml import TwimlError, Verb
from bridge.sandbox.web import WebFailure

VERBS: Mapping[str, Callable[[Leg, Verb], Awaitable[Next | None]]] = {
    "Say": verbs.say,
    "Play": verbs.play,
    "Pause": verbs.pause,
    "Gather": verbs.gather,
    "Redirect": verbs.redirect,
    "Reject": verbs.reject,
    "Hangup": verbs.hang_up,
    "Connect": streaming.connect,
    "Dial": forwarding.dial,
    "Record": recording.record,
    "Start": recording.start,
}


class NoDocument(Exception):
    """Nothing to execute, and no fallback either: the caller hears Twilio's apology."""


class Program:
    """What the leg executes. `copies` > 1 asks for the first document so often at once."""

    def __init__(self, leg: Leg, *, webhook: Next, fallback_url: str, copies: int) -> None:
        self._leg = leg
        self._webhook = webhook
        self._fallback_url = fallback_url
        self._copies = copies

    async def run(self) -> None:
        """Until a document ends without asking for another. Raises Interrupted, NoDocument."""
        request: Next | None = self._webhook
        while request is not None:
            try:
                request = await self._execute(await self._fetch(request))
            except Turned as turned:
                self._leg.go_on()
                request = turned.to

    async def _execute(self, document: list[Verb]) -> Next | None:
        for verb in document:
            if (interruption := self._leg.interruption()) is not None:
                raise interruption
            self._leg.seen.verbs.append(verb.name)
            request = await VERBS[verb.name](self._leg, verb)
            if request is not None:
                return request
        return None

    async def _fetch(self, request: Next) -> list[Verb]:
        """The next document's verbs; those of the number's fallback URL when it cannot be had."""
        leg, url = self._leg, self._leg.asking.absolute(request.url)
        try:
            return await self._document(request)
        except (WebFailure, TwimlError) as error:
            leg.seen.problem(error.code, error.why, url)
            if not self._fallback_url or len(leg.seen.documents) >= MAX_DOCUMENTS:
                raise NoDocument from error
            told = {"ErrorCode": str(error.code), "ErrorUrl": url}
        try:
            return await self._document(Next(self._fallback_url, extra=told))
        except (WebFailure, TwimlError) as error:
            leg.seen.problem(error.code, error.why, self._fallback_url)
            raise NoDocument from error

    async def _document(self, request: Next) -> list[Verb]:
        """Fetched and readable: this is what the call does now. Any first document that does not reject the call answers it."""
        copies = self._copies if request is self._webhook else 1
        self._leg.asking.base_url, found = await self._leg.ask(request, self._leg.standard(), copies=copies)
        if not (found and found[0].name == "Reject"):
            self._leg.take_up()
        return found
