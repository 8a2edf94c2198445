"""Status callbacks: they never hold up the call, and on a good day they arrive once and in the order things happened.

No vendor promises a good day, so there are others: `none` never come, `twice` is a repetition with the same idempotency token, `late`
comes LATE_S after the fact, and `backwards` holds all of them until the call is over and brings the newest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bridge.sandbox.asking import ANSWER_WITHIN_S, Asking
from bridge.sandbox.errands import Errands
from bridge.sandbox.seen import Callback, Seen
from bridge.sandbox.web import Answer, WebFailure

MANNERS = ("as-usual", "none", "twice", "late", "backwards")
LATE_S = 5.0


class Callbacks:
    """The callbacks of one call."""

    def __init__(self, *, seen: Seen, asking: Asking, errands: Errands, manner: str) -> None:
        if manner not in MANNERS:
            raise ValueError(f"Callbacks come {', '.join(MANNERS)}: not {manner}.")
        self._seen = seen
        self._asking = asking
        self._errands = errands
        self._manner = manner
        self._held: list[tuple[str, str, Mapping[str, str]]] = []
        self._newest: asyncio.Task[None] | None = None

    def tell(self, url: str, params: Mapping[str, str], method: str = "POST") -> None:
        """Something happened; nobody asked to be told of it when `url` is empty."""
        if not url or self._manner == "none":
            return
        self._held.append((method, url, params))
        if self._manner != "backwards":
            self._send_held()

    def call_is_over(self) -> None:
        """Nothing more will happen: deliver what was held back."""
        self._held.reverse()
        self._send_held()

    def _send_held(self) -> None:
        for method, url, params in self._held:
            token = self._asking.token()
            for _ in range(2 if self._manner == "twice" else 1):
                self._newest = self._errands.run(self._deliver(method, url, params, token, self._newest))
        self._held.clear()

    async def _deliver(
        self, method: str, url: str, params: Mapping[str, str], token: Mapping[str, str], before: asyncio.Task[None] | None
    ) -> None:
        if self._manner == "late":
            await asyncio.sleep(LATE_S)
        if before is not None:
            await asyncio.wait({before})
        answered = 0
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._asking.send(method, url, params, token)
            answered = answer.status
            if not _contents(answer):
                self._seen.problem(11200, f"callback answered with {answered} {answer.content_type}", url)
        except WebFailure as failure:
            self._seen.problem(failure.code, failure.why, url)
        except TimeoutError:
            self._seen.problem(15002, "callback not answered within 15 s", url)
        self._seen.callbacks.append(Callback(url, params, answered, self._seen.phone.now()))


def _contents(answer: Answer) -> bool:
    """Whether Twilio takes it as an answer to a callback without a word in the debugger."""
    return answer.status == 204 or (answer.status == 200 and answer.content_type.split(";")[0] in ("text/xml", "application/xml"))
