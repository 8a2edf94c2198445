"""Whether this process takes new calls, and how many it carries. The server asks; health and the media door answer to it.

On duty everything is welcome, up to as many streams as one process carries in time: Twilio asks another one with the next.
From the first stop signal on a process takes no new WebSocket, yet it goes on answering HTTP while it carries a call: the
model's tools and Twilio's "what now?" belong to the calls that are still talking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

from bridge.carried import Carried
from bridge.parking import Parking
from supportvoice.limits import refuse_socket, say
from supportvoice.watchdog import Watchdog

MOST_STREAMS = 100  # at once on one loop, measured: docs/bench, 100 calls


@dataclass(slots=True)
class Duty:
    """One per process: `the_duty`."""

    draining: bool = False
    streams: int = 0  # media sockets open now, and agents parked since one of them broke
    carried: Carried = field(default_factory=Carried)
    watchdog: Watchdog = field(default_factory=Watchdog)
    most: int = MOST_STREAMS
    parking: Parking = field(init=False)

    def __post_init__(self) -> None:
        self.parking = Parking(is_open=lambda: not self.draining)

    @property
    def is_full(self) -> bool:
        """A parked agent has no stream: its socket is gone, and the one that comes for it must find room."""
        return self.streams - len(self.parking) >= self.most

    @property
    def why_not(self) -> str:
        """Why no new stream is taken here, in a word; nothing when one is welcome."""
        if self.draining:
            return "stopping"
        if not self.watchdog.takes_calls():
            return "late"
        return "full" if self.is_full else ""

    def streams_counted(self, app: ASGI3Application) -> ASGI3Application:
        """`app` carries calls: count its sockets for as long as they are open."""

        async def counted(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if self.is_full:
                await refuse_socket(scope, receive, send, status=503, sentence="This process carries as many calls as it may.")
                return
            self.streams += 1
            try:
                await app(scope, receive, send)
            finally:
                self.streams -= 1

        return counted

    def no_sockets_when_leaving(self, app: ASGI3Application) -> ASGI3Application:
        """Refuse a WebSocket that arrives while this process is leaving; Twilio and browsers then ask somebody else.

        One that arrives while it is late waits a moment: often it is the further stream of a caller whom nobody else can tell
        from a new one, and a process that stood still is on time again at once.
        """

        async def guarded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if self.draining and scope["type"] == "websocket":
                await refuse_socket(scope, receive, send, status=503, sentence="This process is stopping and takes no new calls.")
            elif scope["type"] == "websocket" and not await self.watchdog.steadied():
                await refuse_socket(scope, receive, send, status=503, sentence="This process is late and takes no new calls.")
            else:
                await app(scope, receive, send)

        return guarded

    def healthz(self) -> tuple[int, str]:
        """Whoever can ask it has been answered by the event loop."""
        return 200, "ok"

    def readyz(self) -> tuple[int, str]:
        """Whether a load balancer may send new calls here, as an HTTP status and a word."""
        return (503, self.why_not) if self.why_not else (200, "ok")

    def health(self, app: ASGI3Application) -> ASGI3Application:
        """Answer `/healthz` (the event loop runs) and `/readyz` (new calls are welcome) before anything else is asked."""

        async def answering(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if scope["type"] != "http" or (asked := scope["path"].strip("/")) not in ("healthz", "readyz"):
                await app(scope, receive, send)
            elif scope["method"] not in ("GET", "HEAD"):
                await say(send, status=405, sentence="Health is asked with GET.")
            else:
                status, sentence = self.healthz() if asked == "healthz" else self.readyz()
                await say(send, status=status, sentence=sentence)

        return answering


@cache
def the_duty() -> Duty:
    """This process's."""
    return Duty()
