"""The caller, heard: audio in, what the client and the server are told of it, and which words became lines of the transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bridge.sandbox import sound
from bridge.sandbox.conversation import Conversation, Finals
from bridge.sandbox.ear import Final, Partial, Recogniser, SpeechStarted, Utterance
from bridge.sandbox.evidence import Evidence
from bridge.sandbox.faults import Faults
from bridge.sandbox.telling import Teller

SILENT_UPLINK_S = 0.3  # a longer hole in the caller's audio is heard as silence
UNKNOWN_SPEECH_S = 0.3  # shorter sounds that nobody understood are noise


class Hearing:
    """One caller. `on_words` is told the words so far, `on_final` a whole utterance; `quiet` is set while the caller does not speak."""

    def __init__(
        self,
        *,
        ear: Recogniser,
        teller: Teller,
        conversation: Conversation,
        evidence: Evidence,
        faults: Faults,
        turn: Callable[[], int],
        on_words: Callable[[str], Awaitable[None]],
        on_final: Callable[[Final], None],
    ) -> None:
        self._ear = ear
        self._teller = teller
        self._conversation = conversation
        self._evidence = evidence
        self._faults = faults
        self._turn = turn
        self._on_words = on_words
        self._on_final = on_final
        self._finals = Finals(faults.finals)
        self._loop = asyncio.get_running_loop()
        self._last_at = self._line_began = self._loop.time()
        self.quiet = asyncio.Event()
        self.quiet.set()
        self.muted = False

    @property
    def voiced_ms(self) -> int:
        return self._ear.voiced_ms

    async def hear(self, ulaw: bytes) -> None:
        """The next audio of the caller, any length."""
        now = self._loop.time()
        self._evidence.uplink += ulaw
        self._evidence.uplink_messages += 1
        if not sound.is_silent(ulaw):
            self._evidence.voiced.append((now, ulaw))
        hole_s = now - self._last_at
        self._last_at = now
        if self.muted or self._faults.deaf or self._teller.silent:
            return
        if hole_s > SILENT_UPLINK_S:
            await self._understand(self._ear.hear(sound.silence(int(hole_s * 1000)), now))
        utterances = self._ear.hear(ulaw, now)
        if utterances:
            await self._understand(utterances)

    def close(self) -> None:
        """The line is dead: what was being said is no final any more, but the report will have it."""
        for utterance in self._ear.close(self._loop.time()):
            if isinstance(utterance, Final):
                self._evidence.understood.append(utterance)
                if line := self._finals.final(utterance.text):
                    self._conversation.remember("user", line, utterance.ended_at - utterance.started_at)

    async def _understand(self, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            match utterance:
                case SpeechStarted(at=at):
                    self.quiet.clear()
                    self._line_began = at
                    await self._teller.tell("speech-update", status="started", role="user", turn=self._turn())
                case Partial(text=text):
                    await self._teller.tell("transcript", role="user", transcriptType="partial", transcript=text)
                    await self._on_words(text)
                    if line := self._finals.partial(text):
                        await self._line(line, keep=self._faults.finals == "pieces")
                case Final():
                    await self._understood(utterance)

    async def _understood(self, final: Final) -> None:
        self._evidence.understood.append(final)
        self.quiet.set()
        await self._teller.tell("speech-update", status="stopped", role="user", turn=self._turn())
        if final.text:
            await self._on_words(final.text)
        if line := self._finals.final(final.text):
            await self._line(line)
        if final.text:
            await self._teller.tell("conversation-update", **self._conversation.so_far())
        if final.text or final.ended_at - final.started_at >= UNKNOWN_SPEECH_S:
            self._on_final(final)

    async def _line(self, line: str, *, keep: bool = True) -> None:
        """A line of the transcript is final. One that will be sent again, whole, is not kept."""
        now = self._loop.time()
        if keep:
            self._conversation.remember("user", line, now - self._line_began)
            self._line_began = now
        await self._teller.tell("transcript", role="user", transcriptType="final", transcript=line)
