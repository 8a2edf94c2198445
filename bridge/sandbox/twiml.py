"""TwiML as Twilio reads it, from Twilio's documents: a list of verbs, or the error code the debugger would show.

Stricter than the vendor on purpose: what Twilio only warns about (an unknown attribute, a value out of range) is an error here, because
nobody reads the debugger of a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

MAX_DOCUMENT = 64 * 1024
CONTENT_TYPES = frozenset({"text/xml", "application/xml", "text/html"})


class TwimlError(Exception):
    """The document cannot be executed; `code` is Twilio's."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


@dataclass(frozen=True, slots=True)
class Verb:
    """One element: its name, attributes as written, text without outer blanks, and children in order."""

    name: str
    attributes: Mapping[str, str]
    text: str
    children: tuple[Verb, ...] = ()

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name, default)

    def seconds(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def says(self, name: str, default: bool) -> bool:
        return self.attributes.get(name, str(default).lower()) == "true"


Check = Callable[[str], bool]


def _number(low: int, high: int) -> Check:
    return lambda value: re.fullmatch(r"[0-9]{1,6}", value) is not None and low <= int(value) <= high


def _one_of(*values: str) -> Check:
    return lambda value: value in values


def _some_of(*values: str) -> Check:
    return lambda value: bool(value) and set(value.split(" ")) <= set(values)


def _matches(pattern: str) -> Check:
    return lambda value: re.fullmatch(pattern, value) is not None


def _any(value: str) -> bool:
    return True


def _url(value: str) -> bool:
    """Absolute http(s), or relative to the document."""
    parts = urlsplit(value)
    return bool(value) and not re.search(r"\s", value) and (parts.scheme in ("http", "https") if parts.scheme else not parts.netloc)


def _absolute(value: str) -> bool:
    return _url(value) and bool(urlsplit(value).netloc)


_BOOL, _METHOD, _E164 = _one_of("true", "false"), _one_of("GET", "POST"), _matches(r"\+[1-9][0-9]{6,14}")
_RECORDING = {
    "recordingStatusCallback": _absolute,
    "recordingStatusCallbackMethod": _METHOD,
    "recordingStatusCallbackEvent": _some_of("in-progress", "completed", "absent"),
    "trim": _one_of("trim-silence", "do-not-trim"),
}
_TRACK = _one_of("both", "inbound", "outbound")
_SAY = {"voice": _any, "language": _any, "loop": _number(0, 1000)}
_PLAY = {"loop": _number(0, 1000), "digits": _matches(r"[0-9*#wW]+")}


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an element may carry. `text`: whether it needs text, may have it, or must not."""

    attributes: Mapping[str, Check]
    children: tuple[str, ...] = ()
    text: str = "none"  # none | may | must
    needs: tuple[str, ...] = ()


_RULES: Mapping[str, _Rule] = {
    "Say": _Rule(_SAY, text="must"),
    "Play": _Rule(_PLAY, text="may"),
    "Pause": _Rule({"length": _number(0, 600)}),
    "Redirect": _Rule({"method": _METHOD}, text="must"),
    "Reject": _Rule({"reason": _one_of("busy", "rejected")}),
    "Hangup": _Rule({}),
    "Connect": _Rule({"action": _url, "method": _METHOD}, children=("Stream",)),
    "Stream": _Rule(
        {"url": _any, "name": _any, "track": _any, "statusCallback": _absolute, "statusCallbackMethod": _METHOD},
        children=("Parameter",),
        needs=("url",),
    ),
    "Parameter": _Rule({"name": _any, "value": _any}, needs=("name", "value")),
    "Start": _Rule({}, children=("Recording",)),
    "Recording": _Rule({"channels": _one_of("mono", "dual"), "track": _TRACK, **_RECORDING}),
    "Dial": _Rule(
        {
            "action": _url,
            "method": _METHOD,
            "timeout": _number(1, 600),
            "timeLimit": _number(1, 14400),
            "callerId": _E164,
            "answerOnBridge": _BOOL,
            "hangupOnStar": _BOOL,
            "sequential": _BOOL,
            "ringTone": _matches(r"[a-z]{2}"),
            "record": _matches(r"do-not-record|record-from-(answer|ringing)(-dual)?"),
            "recordingTrack": _TRACK,
            **_RECORDING,
        },
        children=("Number",),
        text="may",
    ),
    "Number": _Rule(
        {
            "url": _url,
            "method": _METHOD,
            "sendDigits": _matches(r"[0-9*#wW]+"),
            "statusCallback": _absolute,
            "statusCallbackMethod": _METHOD,
            "statusCallbackEvent": _some_of("initiated", "ringing", "answered", "completed"),
        },
        text="must",
    ),
    "Record": _Rule(
        {
            "action": _url,
            "method": _METHOD,
            "timeout": _number(1, 3600),
            "maxLength": _number(1, 14400),
            "finishOnKey": _matches(r"[0-9*#]*"),
            "playBeep": _BOOL,
            "transcribe": _BOOL,
            "transcribeCallback": _absolute,
            **_RECORDING,
        }
    ),
    "Gather": _Rule(
        {
            "action": _url,
            "method": _METHOD,
            "input": _one_of("dtmf"),
            "numDigits": _number(1, 32),
            "timeout": _number(1, 600),
            "finishOnKey": _matches(r"[0-9*#]?"),
            "actionOnEmptyResult": _BOOL,
        },
        children=("Say", "Play", "Pause"),
    ),
}
_VERBS = frozenset(_RULES) - {"Stream", "Parameter", "Number", "Recording"}
_WHISPER_VERBS = frozenset({"Say", "Play", "Gather", "Hangup"})


def parse(body: bytes, content_type: str) -> list[Verb]:
    """The verbs of a document, in order. Raises TwimlError with the code Twilio would log."""
    if content_type.split(";")[0].strip().lower() not in CONTENT_TYPES:
        raise TwimlError(12300, "content type is not TwiML")
    if len(body) > MAX_DOCUMENT:
        raise TwimlError(11750, "document above 64 kB")
    if b"<!DOCTYPE" in body:
        raise TwimlError(12100, "document type declarations are not TwiML")
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - no document type, bounded, from the server under test
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise TwimlError(12100, "document is not XML") from error
    if root.tag != "Response" or root.attrib or (root.text or "").strip():
        raise TwimlError(12100, "the root is a bare <Response>")
    verbs = [_verb(element, _VERBS, "Response") for element in root]
    if any(verb.name == "Reject" for verb in verbs[1:]):
        raise TwimlError(12200, "<Reject> must be the first verb")
    return verbs


def parse_whisper(body: bytes, content_type: str) -> list[Verb]:
    """A document for the called party, before the legs are joined: only Say, Play, Gather, Hangup."""
    verbs = parse(body, content_type)
    for verb in verbs:
        if verb.name not in _WHISPER_VERBS:
            raise TwimlError(13201 if verb.name == "Dial" else 12200, f"<{verb.name}> inside a whisper")
    return verbs


def _verb(element: Any, allowed: frozenset[str] | tuple[str, ...], parent: str) -> Verb:
    if element.tag not in allowed:
        raise TwimlError(12200, f"<{element.tag}> inside <{parent}>")
    if (element.tail or "").strip():
        raise TwimlError(12200, f"text after <{element.tag}>")
    rule = _RULES[element.tag]
    _check_attributes(element.tag, element.attrib, rule)
    text = (element.text or "").strip()
    if (text and rule.text == "none") or (not text and rule.text == "must"):
        raise TwimlError(12200, f"<{element.tag}> {'has' if text else 'lacks'} text")
    verb = Verb(element.tag, dict(element.attrib), text, tuple(_verb(child, rule.children, element.tag) for child in element))
    if (further := _FURTHER.get(verb.name)) is not None:
        further(verb)
    return verb


def _check_attributes(tag: str, attributes: Mapping[str, str], rule: _Rule) -> None:
    for name, value in attributes.items():
        if name not in rule.attributes:
            raise TwimlError(12200, f"<{tag}> has no attribute {name}")
        if not rule.attributes[name](value):
            raise TwimlError(12200, f"<{tag} {name}> has a value Twilio cannot use")
    for name in rule.needs:
        if not attributes.get(name):
            raise TwimlError(12200, f"<{tag}> needs {name}")


def _one_noun(verb: Verb) -> None:
    if len(verb.children) != 1:
        raise TwimlError(12200, f"<{verb.name}> takes exactly one noun")


def _stream(verb: Verb) -> None:
    if verb.get("track") not in ("", "inbound_track"):
        raise TwimlError(31941, "a bidirectional stream has the inbound track only")
    names = [parameter.get("name") for parameter in verb.children]
    if len(names) != len(set(names)):
        raise TwimlError(12200, "a <Parameter> is given twice")
    if any(len(p.get("name")) + len(p.get("value")) >= 500 for p in verb.children):
        raise TwimlError(12200, "name and value of a <Parameter> are under 500 characters")


def _dial(verb: Verb) -> None:
    if bool(verb.text) == bool(verb.children):
        raise TwimlError(12200, "<Dial> takes a number as text, or nouns")
    if len(verb.children) > 10:
        raise TwimlError(12200, "<Dial> rings at most ten numbers")
    if verb.text and not _E164(verb.text):
        raise TwimlError(13224, "not a number to dial")


def _number_noun(verb: Verb) -> None:
    if not _E164(verb.text):
        raise TwimlError(13224, "not a number to dial")


def _say(verb: Verb) -> None:
    if len(verb.text) > 4096:
        raise TwimlError(13521, "too much to <Say>")


def _redirect(verb: Verb) -> None:
    if not _url(verb.text):
        raise TwimlError(11100, "<Redirect> to something that is no URL")


def _play(verb: Verb) -> None:
    if bool(verb.text) == bool(verb.get("digits")) or (verb.text and not _url(verb.text)):
        raise TwimlError(12200, "<Play> takes a URL or digits")


_FURTHER: Mapping[str, Callable[[Verb], None]] = {
    "Connect": _one_noun,
    "Start": _one_noun,
    "Stream": _stream,
    "Dial": _dial,
    "Number": _number_noun,
    "Say": _say,
    "Redirect": _redirect,
    "Play": _play,
}
