"""Answers to `POST /call` that no client should swallow: 201, but not what it says on the label. The call exists all the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.sandbox.evidence import Message

MEGABYTE = 1 << 20
HUGE = 50  # megabytes
DEEP = 10_000
ELSEWHERE = "wss://audio.example.net/"


@dataclass(frozen=True, slots=True)
class Spoiled:
    """One way to spoil an answer. `body` gets the right answer and the id of another call; it yields the bytes to send."""

    says: str
    body: Callable[[Message, str], Iterator[bytes]]
    content_type: str = "application/json"


def _with(answer: Message, **changes: Any) -> Iterator[bytes]:
    yield json.dumps({**answer, **changes}).encode()


def _socket_at(answer: Message, url: str) -> Iterator[bytes]:
    return _with(answer, transport={**answer["transport"], "websocketCallUrl": url})


def _huge(answer: Message, _twin: str) -> Iterator[bytes]:
    yield json.dumps(answer).encode()[:-1] + b', "summary": "'
    for _ in range(HUGE):
        yield b"a" * MEGABYTE
    yield b'"}'


def _deep(answer: Message, _twin: str) -> Iterator[bytes]:
    yield json.dumps(answer).encode()[:-1] + b', "metadata": ' + b"[" * DEEP + b"]" * DEEP + b"}"


def _cut(answer: Message, _twin: str) -> Iterator[bytes]:
    whole = json.dumps(answer).encode()
    yield whole[: len(whole) // 2]


def _bytes(body: bytes) -> Callable[[Message, str], Iterator[bytes]]:
    return lambda _answer, _twin: iter((body,))


def _not_utf8(answer: Message, _twin: str) -> Iterator[bytes]:
    yield json.dumps(answer).encode()[:-1] + b', "n": "\xff\xfe"}'


def _in_array(answer: Message, _twin: str) -> Iterator[bytes]:
    yield json.dumps([answer]).encode()


def _without_transport(answer: Message, _twin: str) -> Iterator[bytes]:
    yield json.dumps({key: value for key, value in answer.items() if key != "transport"}).encode()


def _wrong_types(answer: Message, _twin: str) -> Iterator[bytes]:
    return _with(answer, id=7, transport=[], monitor="x")


def _http_url(answer: Message, _twin: str) -> Iterator[bytes]:
    return _socket_at(answer, answer["transport"]["websocketCallUrl"].replace("ws", "http", 1))


KINDS: Mapping[str, Spoiled] = {
    "not-json": Spoiled("is the word OK instead of JSON", _bytes(b"OK")),
    "html": Spoiled("is a proxy's page in HTML", _bytes(b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"), "text/html"),
    "empty": Spoiled("has no body at all", _bytes(b"")),
    "cut": Spoiled("ends in the middle of its JSON", _cut),
    "array": Spoiled("is an array with the call in it", _in_array),
    "bad-utf8": Spoiled("is JSON with bytes that are no UTF-8", _not_utf8),
    "huge": Spoiled("is a JSON object of 50 MB", _huge),
    "deep": Spoiled("has JSON nested 10,000 levels deep", _deep),
    "wrong-types": Spoiled("has a number for an id and a list for a transport", _wrong_types),
    "no-transport": Spoiled("lacks `transport`", _without_transport),
    "http-url": Spoiled("has an http:// address for its audio socket", _http_url),
    "other-host": Spoiled("sends the audio to a host that is not Vapi's", lambda answer, _: _socket_at(answer, ELSEWHERE + answer["id"])),
    "twin": Spoiled("has the id of another call", lambda answer, twin: _with(answer, id=twin)),
}
