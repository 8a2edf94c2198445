"""A link whose other end speaks 16-bit sound at 16 kHz. This end is the telephone's, so nobody else has to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge import pcm
from bridge.manners import Garbage
from bridge.ports import Link

WIDER = 4  # times as many bytes


class Wideband:
    """See `bridge.ports.Link`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._to_agent, self._from_agent = pcm.ToWide(), pcm.ToTelephone()

    @property
    def dropped_bytes(self) -> int:
        return self._link.dropped_bytes // WIDER

    @property
    def dropped_frames(self) -> int:
        return self._link.dropped_frames

    def send_audio(self, ulaw: bytes) -> None:
        self._link.send_audio(self._to_agent.feed(ulaw))

    def send_control(self, message: Mapping[str, Any]) -> None:
        self._link.send_control(message)

    async def carry(self, on_message: Callable[[bytes | str | Garbage], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        """A message too short for a sample is kept for the next one."""

        def narrowed(message: bytes | str | Garbage) -> bool:
            if not isinstance(message, bytes):
                return on_message(message)
            ulaw = self._from_agent.feed(message)
            return on_message(ulaw) if ulaw else True

        await self._link.carry(narrowed, on_silence=on_silence)

    def drop(self) -> None:
        self._link.drop()

    async def close(self) -> None:
        await self._link.close()
