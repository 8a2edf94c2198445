"""Twilio's media stream, one codec with two directions. Strict in what it sends, exact in what it reads.

Wire format: https://www.twilio.com/docs/voice/media-streams/websocket-messages. Numbers in messages from Twilio are
strings, `connected` has neither sequence number nor stream, and a message to Twilio with an extra key is refused (31951).
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any

import orjson

from bridge.errors import BadMessage

MAX_AUDIO_BYTES = 16_000  # 2 s in one message; Twilio sends 160 bytes


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
    digit: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The call, or its stream, is over at Twilio. Not guaranteed to come."""


Message = Connected | Start | Media | Mark | Dtmf | Stop


def read(text: str | bytes) -> Message:
    """Raises BadMessage when it is not a message Twilio could have sent."""
    try:
        message = orjson.loads(text)
        match message["event"]:
            case "media":
                return Media(_audio(message["media"]["payload"]))
            case "mark":
                return Mark(_text(message["mark"]["name"], 128))
            case "start":
                return _start(message["start"])
            case "connected":
                return Connected()
            case "dtmf":
                return Dtmf(_text(message["dtmf"]["digit"], 1))
            case "stop":
                return Stop()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadMessage("The stream message is not one of Twilio's.") from error
    raise BadMessage("The stream message has an unknown event.")


def media(stream_sid: str, ulaw: bytes) -> str:
    """Audio of any length; Twilio plays what it gets in order."""
    return f'{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":"{b64encode(ulaw).decode()}"}}}}'


def mark(stream_sid: str, name: str) -> str:
    return f'{{"event":"mark","streamSid":"{stream_sid}","mark":{{"name":"{name}"}}}}'


def clear(stream_sid: str) -> str:
    """Empties what Twilio has not played; every outstanding mark comes back at once."""
    return f'{{"event":"clear","streamSid":"{stream_sid}"}}'


def _audio(payload: Any) -> bytes:
    if not isinstance(payload, str) or len(payload) > MAX_AUDIO_BYTES * 4 // 3 + 4:
        raise BadMessage("The audio of a stream message is too long or not text.")
    try:
        return a2b_base64(payload, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise BadMessage("The audio of a stream message is not base64.") from error


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
    return Start(
        account_sid=_text(start["accountSid"], 64),
        call_sid=_text(start["callSid"], 64),
        stream_sid=stream_sid,
        token=_text(parameters.get("token", ""), 500),
    )
