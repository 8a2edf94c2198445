"""The audio socket of Vapi without a network: two queues, for conversations in virtual time."""

from __future__ import annotations

import asyncio


class MemoryLink:
    """Vapi's end (a `turns.Pipe`); `client` is the other end."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self.client = MemoryClient(self._arrived)

    async def send_bytes(self, data: bytes) -> None:
        self.client.put(data)

    async def send_text(self, text: str) -> None:
        self.client.put(text)

    async def receive(self) -> bytes | str | None:
        return await self._arrived.get()

    async def close(self, code: int) -> None:
        self.client.close_code = code
        self.client.put(None)


class MemoryClient:
    """The end of whoever called. `receive` gives None once the socket is closed; `close_code` says how Vapi closed it."""

    def __init__(self, arrived: asyncio.Queue[bytes | str | None]) -> None:
        self._away = arrived
        self._mine: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self.close_code: int | None = None

    def put(self, message: bytes | str | None) -> None:
        self._mine.put_nowait(message)

    def send(self, message: bytes | str) -> None:
        self._away.put_nowait(message)

    async def receive(self) -> bytes | str | None:
        return await self._mine.get()

    def receive_nowait(self) -> list[bytes | str | None]:
        """Everything that has arrived by now."""
        messages = []
        while not self._mine.empty():
            messages.append(self._mine.get_nowait())
        return messages

    def close(self) -> None:
        self._away.put_nowait(None)
