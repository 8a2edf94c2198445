"""TwiML as the sandbox reads it: what it takes, and with which code it refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.twiml import TwimlError, Verb, parse, parse_whisper

TWIML = Path(__file__).parents[1] / "wire" / "twilio" / "twiml"
UNUSED_BY_US = {"07": "Conference", "08": "Enqueue", "09": "Queue"}  # verbs this house never sends


def read(body: str, content_type: str = "text/xml; charset=utf-8") -> list[Verb]:
    return parse(f"<Response>{body}</Response>".encode(), content_type)


@pytest.mark.parametrize("path", sorted(TWIML.glob("*.xml")), ids=lambda path: path.stem)
def test_every_document_of_the_samples_is_read_or_refused_for_a_verb_we_never_send(path: Path) -> None:
    strange = UNUSED_BY_US.get(path.stem[:2])
    if strange is None:
        parse(path.read_bytes(), "application/xml")
        return
    with pytest.raises(TwimlError, match=strange) as caught:
        parse(path.read_bytes(), "application/xml")
    assert caught.value.code == 12200


def test_a_stream_and_what_follows_it_are_read_in_order() -> None:
    connect, redirect = read(
        '<Connect><Stream url="wss://x.example/m"><Parameter name="token" value="a&amp;b"/></Stream></Connect>'
        '<Redirect method="POST"> https://x.example/resume/1 </Redirect>'
    )
    stream = connect.children[0]
    assert (stream.get("url"), stream.children[0].get("value")) == ("wss://x.example/m", "a&b")
    assert (redirect.name, redirect.text) == ("Redirect", "https://x.example/resume/1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<Shout>hello</Shout>", 12200),
        ('<Say vioce="man">typo</Say>', 12200),
        ("<Say></Say>", 12200),
        ("words", 12100),
        ("<Say>a</Say>words", 12200),
        ("<Say>a<Pause/></Say>", 12200),
        ('<Pause length="soon"/>', 12200),
        ("<Connect/>", 12200),
        ("<Connect><Stream/></Connect>", 12200),
        ('<Connect><Stream url="wss://x/m" track="both_tracks"/></Connect>', 31941),
        ('<Connect><Stream url="wss://x/m"><Parameter name="n" value="' + "v" * 499 + '"/></Stream></Connect>', 12200),
        ('<Connect><Stream url="wss://x/m"><Parameter name="n" value="1"/><Parameter name="n" value="2"/></Stream></Connect>', 12200),
        ('<Connect><Stream url="wss://x/m" statusCallback="/relative"/></Connect>', 12200),
        ("<Dial/>", 12200),
        ("<Dial>5551234</Dial>", 13224),
        ("<Dial><Number>tier two</Number></Dial>", 13224),
        ("<Dial>+14155550123<Number>+14155550123</Number></Dial>", 12200),
        ('<Dial timeout="0">+14155550123</Dial>', 12200),
        ("<Dial><Number statusCallbackEvent=\"['initiated']\">+14155550123</Number></Dial>", 12200),
        ("<Say>too late</Say><Reject/>", 12200),
        ("<Redirect/>", 12200),
        ("<Redirect>ftp://x.example/</Redirect>", 11100),
        ('<Record maxLength="120.5"/>', 12200),
        ("<Say>" + "a" * 4097 + "</Say>", 13521),
        ("<Say>&nbsp;</Say>", 12100),
    ],
)
def test_what_twilio_cannot_use_is_refused_with_its_code(body: str, code: int) -> None:
    with pytest.raises(TwimlError) as caught:
        read(body)
    assert caught.value.code == code


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "audio/basic"])
def test_only_xml_and_html_content_types_count(content_type: str) -> None:
    with pytest.raises(TwimlError) as caught:
        read("<Hangup/>", content_type)
    assert caught.value.code == 12300


def test_a_document_above_64_kb_is_refused() -> None:
    with pytest.raises(TwimlError) as caught:
        read(f"<Say>a</Say><!--{'x' * 65536}-->")
    assert caught.value.code == 11750


def test_a_document_type_is_refused_before_it_can_grow() -> None:
    bomb = b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Response><Say>&b;</Say></Response>'
    with pytest.raises(TwimlError) as caught:
        parse(bomb, "text/xml")
    assert caught.value.code == 12100


def test_a_whisper_may_not_dial() -> None:
    assert [verb.name for verb in parse_whisper(b"<Response><Say>a call</Say></Response>", "text/xml")] == ["Say"]
    with pytest.raises(TwimlError) as caught:
        parse_whisper(b"<Response><Dial>+14155550123</Dial></Response>", "text/xml")
    assert caught.value.code == 13201


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_never_a_crash(body: bytes) -> None:
    for document in (body, b"<Response>" + body + b"</Response>"):
        try:
            parse(document, "text/xml")
        except TwimlError as error:
            assert error.code  # noqa: PT017 - both ends are right
