"""The short way to read Twilio's sound says what the long way says, or nothing."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import example, given
from hypothesis import strategies as st

from bridge import twilio_media
from bridge.errors import BadMessage
from bridge.express import express

STREAM = "MZ0123456789abcdef"


def as_twilio_writes(payload: str, *, track: str = "inbound", stream: str = STREAM, number: str = "4") -> str:
    return (
        f'{{"event":"media","sequenceNumber":"{number}","media":{{"track":"{track}","chunk":"2","timestamp":"5",'
        f'"payload":"{payload}"}},"streamSid":"{stream}"}}'
    )


def long_way(text: str) -> bytes | None:
    try:
        message = twilio_media.read(text, STREAM)
    except BadMessage:
        return None
    return message.ulaw if isinstance(message, twilio_media.Media) else None


GOOD = as_twilio_writes(b64encode(bytes(range(160))).decode())
PIECES = st.sampled_from(['"', "\\", "=", "A", "{", "}", ",", "é", "\ud800", "\x00", " ", '"payload":"', '","track":"outbound', GOOD[:40]])


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """A good message with some of it taken out and something else put in."""
    at = draw(st.integers(0, len(GOOD)))
    until = draw(st.integers(at, min(len(GOOD), at + 8)))
    return GOOD[:at] + "".join(draw(st.lists(PIECES | st.text(max_size=3), max_size=3))) + GOOD[until:]


@given(nearly() | st.text() | st.builds(as_twilio_writes, st.text(max_size=12), number=st.text("0123456789-", max_size=4)))
@example(as_twilio_writes("AAAA=="))
@example(as_twilio_writes("////", track="outbound"))
@example(as_twilio_writes("////", stream="MZother"))
@example(as_twilio_writes('AAAA"},"media":{"payload":"////'))
@example(as_twilio_writes(""))
@example(as_twilio_writes("A" * 40_000))
@example(GOOD + " ")
def test_what_the_short_way_gives_the_long_way_gives_too(text: str) -> None:
    sound = express(STREAM)(text.encode(errors="surrogatepass"))
    assert sound is None or sound == long_way(text)


@given(st.binary(min_size=1, max_size=800), st.integers(0, 10**9))
def test_sound_as_twilio_writes_it_goes_the_short_way(sound: bytes, number: int) -> None:
    text = as_twilio_writes(b64encode(sound).decode(), number=str(number))
    assert express(STREAM)(text.encode()) == sound == long_way(text)
