"""Twilio's HTTP side: who may knock (signatures), and what we answer (TwiML).

A signature is checked against the public URL we were configured with, never against the Host header or what a proxy
says the scheme was. Voice signs the full URL and, for forms, every field; the media WebSocket signs its `wss://` URL alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from twilio.request_validator import HMAC_SHA1, HMAC_SHA256, RequestValidator, get_signature_algorithm
from twilio.twiml.voice_response import Connect, Dial, Gather, Start, VoiceResponse

SIGNATURE = "X-Twilio-Signature"
SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
SPOKEN_LIMIT = 3000  # characters of the strictest voice family (error 13521 beyond)
HUMAN_TIME_LIMIT_S = 4 * 3600
VOICEMAIL_LIMIT_S = 120
DECIDE_WITHIN_S = 1  # after a question that people hear out before they press, or do not
NEXT_TURN_S = 2  # of the queue: so long a key may be pressed after the words
PRESS_WITHIN_S = 2  # after the prompt; then the tone comes
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class TwilioProof:
    """Says whether Twilio sent a request. Several tokens are accepted while one is being rotated out; none: nobody passes."""

    def __init__(self, *, public_url: str, tokens: Iterable[str]) -> None:
        self._http_base = public_url.rstrip("/")
        self._socket_base = socket_url(self._http_base)
        self._validators = [RequestValidator(token) for token in tokens if token]

    def form(self, *, path: str, fields: Any, headers: Mapping[str, str]) -> bool:
        """True when Twilio signed this form. `path` is the raw path with its query; `fields` Django's own QueryDict,
        because repeated names count. `headers` are looked up by Twilio's spelling and must ignore case."""
        return self.signed(self._http_base + path, fields, headers.get(SIGNATURE), headers.get(SETTINGS))

    def __call__(self, *, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """True when Twilio signed this WebSocket upgrade. Twilio may sign the URL with a slash more or less than ours."""
        signature = headers.get(SIGNATURE.lower().encode(), b"").decode("latin-1")
        settings = headers.get(SETTINGS.lower().encode(), b"").decode("latin-1")
        bare = path.rstrip("/")
        return any(self.signed(self._socket_base + variant, None, signature, settings) for variant in (bare, f"{bare}/"))

    def signed(self, url: str, fields: Any, signature: str | None, settings: str | None) -> bool:
        """True when one of our tokens made this signature over exactly this URL and these fields (a str: a JSON body).

        False, never an exception, for whatever else a stranger may send.
        """
        algorithm = get_signature_algorithm(settings)
        if not signature or algorithm not in (HMAC_SHA1, HMAC_SHA256):
            return False
        try:
            return any(validator.validate(url, fields, signature, algorithm) for validator in self._validators)
        except (TypeError, ValueError):  # a URL or body the library cannot take apart
            return False


def socket_url(http_url: str) -> str:
    """The same address as a WebSocket: https becomes wss, and a laptop's plain http becomes ws."""
    parts = urlsplit(http_url)
    return parts._replace(scheme={"https": "wss", "http": "ws"}[parts.scheme]).geturl()


def speakable(text: str) -> str:
    """One line of text that `<Say>` can carry: no character XML forbids, no longer than Twilio reads out."""
    return " ".join(NOT_XML.sub(" ", text).split())[:SPOKEN_LIMIT]


def connect_stream(
    *,
    disclosure: str,
    stream_url: str,
    stream_status_url: str,
    token: str,
    resume_url: str,
    recording_url: str = "",
    question: str = "",
    question_url: str = "",
    is_announced: bool = False,
) -> str:
    """Say the disclosure (none when empty), carry the audio, and ask `resume_url` however the stream ends.

    With a `recording_url` both sides are recorded from the disclosure's end to the call's; without a disclosure never, unless
    it `is_announced` before. With a `question`, said after the disclosure, `question_url` gets the key the caller presses; who
    presses none goes on here.
    """
    twiml = VoiceResponse()
    announced = speakable(disclosure)
    if announced:
        twiml.say(announced)
    if question:
        keys = Gather(action=question_url, method="POST", num_digits=1, timeout=DECIDE_WITHIN_S, finish_on_key="")
        keys.say(speakable(question))
        twiml.append(keys)
    if (announced or is_announced) and recording_url:
        start = Start()
        start.recording(
            channels="dual",
            track="both",
            recording_status_callback=recording_url,
            recording_status_callback_method="POST",
            recording_status_callback_event="in-progress completed absent",
        )
        twiml.append(start)
    connect = Connect()
    stream = connect.stream(url=stream_url, status_callback=stream_status_url, status_callback_method="POST")
    stream.parameter(name="token", value=token)
    twiml.append(connect)
    twiml.redirect(resume_url, method="POST")
    return str(twiml)


def dial_human(
    *,
    sentence: str,
    number: str,
    whisper_url: str,
    leg_url: str,
    action_url: str,
    caller_id: str,
    ring_seconds: int,
    talk_s: int = HUMAN_TIME_LIMIT_S,
) -> str:
    """Ring one person; they hear `whisper_url` before they hear the caller, who hears the ringing go on meanwhile.

    `leg_url` is told each state of the person's leg, `action_url` how it all went.
    """
    twiml = VoiceResponse()
    if sentence:
        twiml.say(speakable(sentence))
    dial = Dial(
        action=action_url,
        method="POST",
        timeout=ring_seconds,
        answer_on_bridge=True,
        time_limit=min(talk_s, HUMAN_TIME_LIMIT_S),
        caller_id=caller_id or None,
    )
    dial.number(
        number,
        url=whisper_url,
        method="POST",
        status_callback=leg_url,
        status_callback_method="POST",
        status_callback_event="initiated ringing answered completed",  # a list would be written as Python writes lists
    )
    twiml.append(dial)
    return str(twiml)


def whisper(sentence: str) -> str:
    """What the person who picked up hears before the caller is put through."""
    twiml = VoiceResponse()
    twiml.say(speakable(sentence))
    return str(twiml)


def voicemail(*, prompt: str, action_url: str, recording_url: str, nothing_heard: str, offer: str = "", offer_url: str = "") -> str:
    """Ask for a message and record it; `action_url` is asked next, also when the caller just hangs up after speaking.

    `recording_url` is told when the recording can be had. Nobody asks us anything when the caller says nothing: they hear
    `nothing_heard`. With an `offer`, said after the prompt, `offer_url` gets the key the caller presses instead.
    """
    twiml = VoiceResponse()
    if offer:
        keys = Gather(action=offer_url, method="POST", num_digits=1, timeout=PRESS_WITHIN_S)
        keys.say(speakable(prompt))
        keys.say(speakable(offer))
        twiml.append(keys)
    else:
        twiml.say(speakable(prompt))
    twiml.record(
        action=action_url,
        method="POST",
        max_length=VOICEMAIL_LIMIT_S,
        play_beep=True,
        timeout=5,
        finish_on_key="#",
        recording_status_callback=recording_url,
        recording_status_callback_method="POST",
        recording_status_callback_event="completed absent",
    )
    twiml.say(speakable(nothing_heard))
    return str(twiml)


def wait_in_line(*, sentences: Iterable[str], next_url: str, longer_s: int = 0) -> str:
    """A turn in the queue: words, and a moment for a key, `longer_s` more than usual; then `next_url` is asked, with the key if any."""
    twiml = VoiceResponse()
    keys = Gather(action=next_url, method="POST", num_digits=1, timeout=NEXT_TURN_S + longer_s, finish_on_key="")
    for sentence in sentences:
        keys.say(speakable(sentence))
    twiml.append(keys)
    twiml.redirect(next_url, method="POST")
    return str(twiml)


def say_and_hang_up(sentence: str) -> str:
    twiml = VoiceResponse()
    twiml.say(speakable(sentence))
    twiml.hangup()
    return str(twiml)


def hang_up() -> str:
    twiml = VoiceResponse()
    twiml.hangup()
    return str(twiml)


def ask_at(url: str) -> str:
    twiml = VoiceResponse()
    twiml.redirect(url, method="POST")
    return str(twiml)


def hold_on(sentences: Iterable[str], *, next_url: str) -> str:
    """Something to hear, with a breath between the sentences, until somebody else sends the call on, or they are all said."""
    twiml = VoiceResponse()
    for number, sentence in enumerate(sentences):
        if number:
            twiml.pause(length=1)
        twiml.say(speakable(sentence))
    twiml.redirect(next_url, method="POST")
    return str(twiml)


def nothing() -> str:
    """The answer to a status callback: heard, and nothing to do."""
    return str(VoiceResponse())


def static_rescue(*, sentence: str, number: str, caller_id: str, ring_seconds: int, talk_s: int, prompt: str, after_url: str = "") -> str:
    """A document that needs no server of ours: ring a person (none without a `number`), then take a message that stays at Twilio.

    Nobody is asked how the ringing went, so the prompt is heard after a talk, too. Without an `after_url` Twilio starts the document
    again when the message is over, if the caller is still there.
    """
    twiml = VoiceResponse()
    twiml.say(speakable(sentence))
    if number:
        dial = Dial(timeout=ring_seconds, time_limit=min(talk_s, HUMAN_TIME_LIMIT_S), caller_id=caller_id or None, answer_on_bridge=True)
        dial.number(number)
        twiml.append(dial)
    twiml.say(speakable(prompt))
    where = {"action": after_url, "method": "GET"} if after_url else {}
    twiml.record(max_length=VOICEMAIL_LIMIT_S, play_beep=True, timeout=10, finish_on_key="#", **where)
    twiml.hangup()
    return str(twiml)
