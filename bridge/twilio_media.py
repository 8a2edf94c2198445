"""Twilio's media stream, one codec with two directions. Strict in what it sends, exact in what it reads.

Wire format: https://www.twilio.com/docs/voice/media-streams/websocket-messages. Numbers in messages from Twilio are
strings, `connected` has neither sequence number nor stream, and a message to Twilio with an extra key is refused (31951).
Sequence numbers are not looked at: the socket keeps the order, and a gap in them is nothing a bridge could mend.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.errors import BadMessage

MAX_AUDIO_BYTES = 16_000  # 2 s in one message; Twilio sends 160 bytes
MAX_PARAMETERS = 20  # in `start`; our TwiML gives one
KEYS = frozenset("0123456789*#ABCD")


@dataclass(frozen=True, slots=True)
class Connected:
    """First message of every stream; says nothing but the protocol."""


@dataclass(frozen=True, slots=True)
class Start:
    account_sid: str
    call_sid: str
    stream_sid: str
    token: str  # our <Parameter>; empty when missing


@dataclass(frozen=True, slots=True)
class Media:
    ulaw: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark came back: everything before it was played, or cleared. Its name tells which."""

    name: str


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key. Which one may be part of a card number: it is looked at once and never printed."""

    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """The call, or its stream, is over at Twilio. Not guaranteed to come."""


Message = Connected | Start | Media | Mark | Dtmf | Stop


def read(text: str | bytes, stream_sid: str = "") -> Message:
    """`stream_sid` is the stream's own name, from `start` on. Raises BadMessage when Twilio could not have sent this on it."""
    try:
        message = orjson.loads(text)
        event = message["event"]
        if stream_sid and event != "connected" and message["streamSid"] != stream_sid:
            raise BadMessage("The stream message is of another stream.", kind="other-stream")
        match event:
            case "media":
                return Media(_audio(message["media"]))
            case "mark":
                return Mark(_text(message["mark"]["name"], 128))
            case "start":
                return _start(message["start"])
            case "connected":
                return Connected()
            case "dtmf":
                return Dtmf(_key(message["dtmf"]["digit"]))
            case "stop":
                return Stop()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadMessage("The stream message is not one of Twilio's.") from error
    raise BadMessage("The stream message has an unknown event.", kind="unknown")


def media(stream_sid: str, ulaw: bytes) -> str:
    """Audio of any length; Twilio plays what it gets in order."""
    return f'{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":"{b2a_base64(ulaw, newline=False).decode()}"}}}}'


def mark(stream_sid: str, name: str) -> str:
    return f'{{"event":"mark","streamSid":"{stream_sid}","mark":{{"name":"{name}"}}}}'


def clear(stream_sid: str) -> str:
    """Empties what Twilio has not played; every outstanding mark comes back at once."""
    return f'{{"event":"clear","streamSid":"{stream_sid}"}}'


def _audio(sound: Any) -> bytes:
    payload = sound["payload"]
    if not isinstance(payload, str) or not 0 < len(payload) <= MAX_AUDIO_BYTES * 4 // 3 + 4:
        raise BadMessage("The audio of a stream message is empty, too long or not text.", kind="audio")
    if sound.get("track", "inbound") != "inbound":  # the agent must not hear itself
        raise BadMessage("The audio of a stream message is not the caller's.", kind="audio")
    try:
        return a2b_base64(payload, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise BadMessage("The audio of a stream message is not base64.", kind="audio") from error


def _key(digit: Any) -> str:
    if not isinstance(digit, str) or digit not in KEYS:
        raise BadMessage("A telephone has no such key.", kind="key")
    return digit


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise BadMessage("A stream message holds a value that is too long or not text.")
    return value


def _start(start: Any) -> Start:
    sound = start["mediaFormat"]
    if (sound["encoding"], sound["sampleRate"], sound["channels"]) != ("audio/x-mulaw", 8000, 1):
        raise BadMessage("The stream is not 8 kHz mu-law, the only sound a call can have.")
    stream_sid = _text(start["streamSid"], 64)
    if not stream_sid.isalnum():  # it is written into every message we send
        raise BadMessage("The stream's name is not one of Twilio's.")
    parameters = start.get("customParameters") or {}
    if not isinstance(parameters, dict) or len(parameters) > MAX_PARAMETERS:
        raise BadMessage("The stream brings more parameters than it was given.")
    return Start(
        account_sid=_text(start["accountSid"], 64),
        call_sid=_text(start["callSid"], 64),
        stream_sid=stream_sid,
        token=_text(parameters.get("token", ""), 500),
    )
