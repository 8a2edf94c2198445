"""Bad input to order: what strangers, broken vendors and attackers send. Every case is a pure function of (seed, door, number).

A case starts from something right, because what is nearly right gets furthest: a sample is bent in a few places, then perhaps
broken as bytes. Nothing here knows which door it is for, nor what the door should do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import quote_plus

LONG = 70_000
DEEP = 3_000
TEXTS: Sequence[str] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",  # half a character
    "\u202eevil\u202c",
    "\u2028\u2029\x85",
    "\r\nSet-Cookie: a=b",
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]></Say><Dial>+19005550100</Dial><Say>",
    "'; DROP TABLE calls_callsession; --",
    "{{ settings.SECRET_KEY }}{% debug %}",
    "${jndi:ldap://x}",
    "=cmd|' /C calc'!A0",
    "../../../../etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "+1-900-555-0100",
    "tel:+15550100111;ext=1",
    "NaN",
    "1e400",
    "-0",
    "007",
    "9" * 400,
    "٣٤٥",  # digits, but not ASCII's
    "CA" + "a" * 32,
    "ca" + "A" * 32,
    "x" * 300,
    "é" * 5_000,
)
VALUES: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    [],
    {},
    [[]],
    [None],
    {"": ""},
    {"__proto__": {"x": 1}, "constructor": None},
    {"id": "x", "type": "y", "name": "z"},
)


class Hostile:
    """One case. Its answers depend on nothing but what it was made with and the order they are asked in."""

    def __init__(self, seed: int, door: str, number: int) -> None:
        self.rng = Random(f"{seed}|{door}|{number}")

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def value(self) -> Any:
        """Something that should not be where it is."""
        return self.text() if self.rng.random() < 0.5 else self.rng.choice(VALUES)

    def bent(self, sample: Any, *, places: int | None = None) -> Any:
        """The sample with a few of its values replaced, removed, renamed, repeated or buried."""
        bent = json.loads(json.dumps(sample))
        for _ in range(self.rng.randint(0, 4) if places is None else places):
            bent = self._bend(bent)
        return bent

    def _bend(self, value: Any) -> Any:
        if isinstance(value, dict) and value and self.rng.random() < 0.85:
            return self._bend_object(value)
        if isinstance(value, list) and value and self.rng.random() < 0.85:
            place = self.rng.randrange(len(value))
            return [*value[:place], self._bend(value[place]), *value[place : place + self.rng.randint(0, 2)], *value[place + 1 :]]
        return self.value()

    def _bend_object(self, value: dict[str, Any]) -> dict[str, Any]:
        key = self.rng.choice(list(value))
        changed = dict(value)
        match self.rng.randrange(10):
            case 0:
                del changed[key]
            case 1:
                changed[self.rng.choice((key.upper(), key + "\0", key + " ", self.text()))] = changed.pop(key)
            case 2:
                changed[self.text()] = self.value()
            case 3:
                changed[key] = [changed[key]]
            case _:
                changed[key] = self._bend(changed[key])
        return changed

    def message(self, sample: Any) -> bytes:
        """A JSON body: the sample, bent, and in one case of four broken as bytes too."""
        raw = json.dumps(self.bent(sample)).encode()
        return self.broken(raw) if self.rng.random() < 0.25 else raw

    def broken(self, raw: bytes) -> bytes:
        """Bytes that were right once."""
        at = self.rng.randrange(len(raw) + 1)
        ways: Sequence[Callable[[], bytes]] = (
            lambda: raw[:at],
            lambda: raw[:at] + self.rng.randbytes(self.rng.randint(1, 8)) + raw[at:],
            lambda: raw[:at] + raw[at + 1 :],
            lambda: b"\xef\xbb\xbf" + raw,
            lambda: raw + raw,
            lambda: b"",
            lambda: b"[" * DEEP + b"]" * DEEP,
            lambda: b'{"message":' * DEEP + b"1" + b"}" * DEEP,
            lambda: b'"' + b"x" * LONG + b'"',
            lambda: b"[" + b"0," * LONG + b"0]",
            lambda: raw.decode("utf-8", "replace").encode("utf-16"),
            lambda: self.rng.randbytes(self.rng.randint(1, 200)),
            lambda: raw.replace(b'"', b"'"),
            lambda: b"\x1f\x8b" + raw,
        )
        return self.rng.choice(ways)()

    def fields(self, sample: Mapping[str, str]) -> list[tuple[str, str]]:
        """The pairs of a form: the sample's, some missing, repeated, renamed, and some nobody asked for."""
        pairs = list(sample.items())
        for _ in range(self.rng.randint(0, 4)):
            place = self.rng.randrange(len(pairs)) if pairs else 0
            name, value = pairs[place] if pairs else ("CallSid", "")
            match self.rng.randrange(6):
                case 0:
                    del pairs[place : place + 1]
                case 1:
                    pairs.append((name, self.text()))
                case 2:
                    pairs.append((self.text(), value))
                case 3:
                    pairs += [(f"Extra{number}", "x") for number in range(self.rng.choice((3, 150, 400)))]
                case _:
                    pairs[place : place + 1] = [(name, self.text())]
        return pairs

    def form(self, sample: Mapping[str, str]) -> bytes:
        """A form's body, in one case of six broken as bytes too."""
        pairs = (f"{_quoted(name)}={_quoted(value)}" for name, value in self.fields(sample))
        raw = "&".join(pairs).encode()
        return self.broken(raw) if self.rng.random() < 1 / 6 else raw

    def http_answer(self, sample: Any) -> bytes:
        """The bytes of a whole HTTP/1.1 answer whose sender closes the connection after it."""
        body = self.message(sample)
        status = self.rng.choice((200, 201, 201, 204, 206, 302, 400, 401, 404, 418, 429, 500, 503, 999))
        head = [f"HTTP/1.1 {status} {self.rng.choice(('OK', '', 'x' * 300))}", f"Content-Length: {len(body)}"]
        match self.rng.randrange(8):
            case 0:
                head[1] = f"Content-Length: {self.rng.choice((0, 1, -1, 10**12))}"
            case 1:
                head[1] = "Transfer-Encoding: chunked"
            case 2:
                head += ["Location: http://169.254.169.254/", "Retry-After: 9999", "Set-Cookie: a=b"]
            case 3:
                head += [f"X-{number}: y" for number in range(150)]
            case 4:
                head[0] = self.rng.choice(("HTTP/9.9 200 OK", "NOTHTTP", "", "HTTP/1.1 abc", "HTTP/1.1 -5 x"))
            case 5:
                head.append("Content-Encoding: gzip")
        return "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1", "replace") + body


def _quoted(text: str) -> str:
    return quote_plus(text, errors="surrogatepass")
