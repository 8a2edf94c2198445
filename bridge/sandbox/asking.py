"""How a call asks its house for documents: signed, within 15 s, redirects followed, tried once more when nobody answers the door.

A URL may say otherwise in its fragment, which the house never sees: `#rc=2&rp=5xx,rt&rt=3000` has the vendor try twice more, also after
an answer of 5xx and when none has begun after 3 s. `rp=all` is whatever went wrong before an answer began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urldefrag, urlencode, urljoin, urlsplit, urlunsplit

from bridge.sandbox.errands import Errands
from bridge.sandbox.seen import Document, Seen
from bridge.sandbox.twiml import TwimlError, Verb
from bridge.sandbox.web import Answer, Web, WebFailure, signature_headers

ANSWER_WITHIN_S = 15.0
MAX_REDIRECTS = 10
MAX_DOCUMENTS = 60  # nobody's call needs more; a loop does
MAX_RETRIES = 5
REDIRECTS = {301, 302, 303, 307, 308}
IDEMPOTENCY = "I-Twilio-Idempotency-Token"

Reader = Callable[[bytes, str], list[Verb]]


@dataclass(frozen=True, slots=True)
class Next:
    """A request for the next document; or, with `twiml`, that document itself."""

    url: str
    method: str = "POST"
    extra: Mapping[str, str] = field(default_factory=dict)
    twiml: str = ""


@dataclass(frozen=True, slots=True)
class Overrides:
    """How often a request is tried again, after what, and how long each try may take, in seconds."""

    retries: int = 1
    after: frozenset[str] = frozenset({"ct"})
    within_s: float = ANSWER_WITHIN_S

    @classmethod
    def of(cls, url: str) -> Self:
        told = dict(parse_qsl(urldefrag(url).fragment))
        return cls(
            retries=min(int(told.get("rc", 1)), MAX_RETRIES),
            after=frozenset(told.get("rp", "ct").split(",")),
            within_s=min(float(told.get("rt", 1000 * ANSWER_WITHIN_S)) / 1000, ANSWER_WITHIN_S),
        )

    def again(self, what: str) -> bool:
        return bool(self.after & {what, "all"})


class Asking:
    """One call's way to its house. `base_url` is where the document came from that is being executed: relative URLs start there."""

    def __init__(
        self, *, seen: Seen, web: Web, errands: Errands, auth_token: str, algorithm: str, base_url: str, fresh: Callable[[], str]
    ) -> None:
        self.base_url = base_url
        self.web = web
        self._seen = seen
        self._errands = errands
        self._auth_token = auth_token
        self._algorithm = algorithm
        self._fresh = fresh  # makes an idempotency token
        self._loop = asyncio.get_running_loop()

    def absolute(self, url: str) -> str:
        return urljoin(self.base_url, url)

    def signed(self, url: str, params: Mapping[str, str]) -> dict[str, str]:
        """The headers that prove a request."""
        return signature_headers(self._auth_token, url, params, self._algorithm)

    def token(self) -> dict[str, str]:
        """What tells a repeated request from a new one."""
        return {IDEMPOTENCY: self._fresh()}

    async def ask(self, request: Next, params: Mapping[str, str], reader: Reader, *, copies: int = 1) -> tuple[str, list[Verb]]:
        """A document as (URL, verbs). `copies` > 1 asks so often at once, as one request. Raises WebFailure, TwimlError.

        A request sent is a request sent: cancelling this leaves it under way.
        """
        if len(self._seen.documents) >= MAX_DOCUMENTS:
            raise TwimlError(11215, "documents go in a circle")
        if request.twiml:
            return "", reader(request.twiml.encode(), "text/xml")
        token, form = self.token(), {**params, **request.extra}
        asked = [self._errands.run(self.get(request, form, token)) for _ in range(copies)]
        document, *others = await asyncio.shield(asyncio.gather(*asked))
        if any(other.body != document.body or other.status != document.status for other in others):
            self._seen.problem(0, "the same request was answered differently", request.url)
        if document.status >= 400:
            raise WebFailure(11200, f"answered with {document.status}")
        return document.url, reader(document.body, document.content_type)

    async def get(self, request: Next, params: Mapping[str, str], extra_headers: Mapping[str, str]) -> Document:
        """One document, redirects followed, 15 s for everything. Raises WebFailure."""
        url, method, asked = self.absolute(request.url), request.method, self._loop.time()
        self._seen.phone.remember("asks", url=url)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self.send(method, url, params, extra_headers)
                    if answer.status not in REDIRECTS:
                        return self._received(urldefrag(url).url, answer, asked)
                    url = urljoin(url, answer.location)
                    method = method if answer.status in (307, 308) else "GET"
        except TimeoutError as error:
            raise WebFailure(11205, "no answer within 15 s") from error
        raise WebFailure(11215, "more than ten redirects")

    def _received(self, url: str, answer: Answer, asked: float) -> Document:
        now = self._loop.time()
        document = Document(url, answer.status, answer.content_type, answer.body, now, now - asked)
        self._seen.documents.append(document)
        self._seen.phone.remember("document", status=answer.status)
        return document

    async def send(self, method: str, url: str, params: Mapping[str, str], extra_headers: Mapping[str, str]) -> Answer:
        """One signed request, tried again as its URL says. Raises WebFailure."""
        how, url = Overrides.of(url), urldefrag(url).url
        if method == "GET":
            parts = urlsplit(url)
            url, params = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(params)))))), {}
        headers = {**self.signed(url, params), **extra_headers}
        for _ in range(how.retries):
            try:
                async with asyncio.timeout(how.within_s):
                    answer = await self.web.request(method, url, params, headers)
                if answer.status < 400 or not how.again(f"{answer.status // 100}xx"):
                    return answer
            except TimeoutError:
                if not how.again("rt"):
                    raise
            except WebFailure as failure:
                if not how.again("ct" if failure.connecting else "an end without an answer"):
                    raise
        async with asyncio.timeout(how.within_s):
            return await self.web.request(method, url, params, headers)
