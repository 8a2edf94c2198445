"""The sandbox Twilio from outside: what it asks, how it signs, what it does with the answers.

Most calls run in virtual time against a house in memory; the last part speaks over real sockets.
"""

import asyncio
import base64
import io
import json
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator

from bridge.sandbox import virtual
from bridge.sandbox.clips import CLIPS, by_text
from bridge.sandbox.dial import Human
from bridge.sandbox.media import Pipe
from bridge.sandbox.script import Caller, HangUp, Heard, Press, Say, Start, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.virtual import MemoryPipe, ServerEnd
from bridge.sandbox.web import Answer, Internet, WebFailure, signature, signature_headers, signed_url

WIRE = Path(__file__).parents[1] / "wire" / "twilio"
TOKEN = "0123456789abcdef0123456789abcdef"
HOUSE = "https://voice.example.com"
STREAM = '<Connect><Stream url="wss://voice.example.com/media" statusCallback="https://voice.example.com/stream"/></Connect>'
NUMBER, OTHER = "+14155550123", "+14155550124"

# ---- signatures

CASES = [case for case in json.loads((WIRE / "signatures/signatures.json").read_text())["cases"] if case["expect_valid"]]


@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] != "json"], ids=lambda case: case["name"])
def test_signatures_are_those_of_the_samples(case: dict[str, Any]) -> None:
    params = dict(case["params"] or [])
    if len(params) != len(case["params"] or []) or case["method"] == "GET":
        params = {}  # a GET signs its URL only; this stranger never sends a name twice
        if case["name"] == "duplicate_keys":
            return
    algorithm = case["algorithm"].removeprefix("HMAC_").lower()
    assert signature(case["signing_token"], case["signed_url"], params, algorithm) == case["headers"]["X-Twilio-Signature"]


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://voice.example.com:8443/a?b=c%20d#rc=2", "https://voice.example.com/a?b=c%20d"),
        ("http://127.0.0.1:8000/a/", "http://127.0.0.1:8000/a/"),
        ("https://user:secret@voice.example.com/a", "https://voice.example.com/a"),
        ("wss://voice.example.com:443/media", "wss://voice.example.com/media"),
        ("ws://127.0.0.1:8000/media", "ws://127.0.0.1:8000/media"),
    ],
)
def test_a_url_is_signed_without_user_fragment_and_tls_port(url: str, signed: str) -> None:
    assert signed_url(url) == signed


# ---- a house in memory


class House:
    """Answers from a table of documents, checks every signature with Twilio's own library, and keeps what it was asked."""

    def __init__(self, documents: Mapping[str, str | Answer | float], media: Callable[[ServerEnd], Awaitable[None]] | None = None) -> None:
        self.documents = documents
        self.media = media
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refuse_with = 0
        self._servers: list[asyncio.Task[None]] = []

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        assert RequestValidator(TOKEN).validate(url, dict(params), headers["X-Twilio-Signature"])
        path = urlsplit(url).path
        self.asked.append((path, dict(params)))
        answer = self.documents.get(path, Answer(204, "", b""))
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return Answer(200, "text/xml", b"<Response/>")
        if isinstance(answer, Answer):
            return answer
        return Answer(200, "text/xml", f"<Response>{answer}</Response>".encode())

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        assert RequestValidator(TOKEN).validate(url, {}, headers["X-Twilio-Signature"])
        if self.refuse_with or self.media is None:
            raise WebFailure(31920, f"handshake answered with {self.refuse_with}")
        pipe = MemoryPipe()
        self._servers.append(asyncio.create_task(self.media(pipe.server)))  # type: ignore[arg-type]
        return pipe

    async def close(self) -> None:
        for task in self._servers:
            task.cancel()
        for result in await asyncio.gather(*self._servers, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def params(self, path: str) -> dict[str, str]:
        return next(params for asked, params in self.asked if asked == path)


def place(house: House, *steps: Step, meanwhile: Callable[[TwilioCall], Awaitable[None]] | None = None, **options: Any) -> TwilioCall:
    """One whole call in virtual time."""

    async def carry() -> TwilioCall:
        call = TwilioCall(
            webhook_url=f"{HOUSE}/voice",
            status_url=f"{HOUSE}/status",
            auth_token=TOKEN,
            caller=Caller(steps),
            web=house,
            rng=Random(7),
            wall=lambda: 1_795_000_000.0,
            **options,
        )
        if meanwhile is None:
            return await call.run()
        running = asyncio.create_task(call.run())
        await meanwhile(call)
        return await running

    return virtual.run(carry())


def clip_message(sid: str, ulaw: bytes) -> str:
    return json.dumps({"event": "media", "streamSid": sid, "media": {"payload": base64.b64encode(ulaw).decode()}})


def mark_message(sid: str, name: str) -> str:
    return json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": name}})


async def opened(server: ServerEnd) -> str:
    """Reads `connected` and `start`; the stream's sid."""
    connected, start = json.loads(await server.receive() or ""), json.loads(await server.receive() or "")
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    return str(start["streamSid"])


async def greet_and_close(server: ServerEnd) -> None:
    sid = await opened(server)
    await server.send(clip_message(sid, CLIPS["greeting"].ulaw))
    await server.send(mark_message(sid, "end"))
    while (text := await server.receive()) is not None:
        if json.loads(text)["event"] == "mark":
            await server.close()
            return


# ---- TwiML, in virtual time


def test_the_first_webhook_carries_the_27_standard_fields_of_the_sample() -> None:
    house = House({"/voice": "<Hangup/>"})
    call = place(house)
    sample = json.loads((WIRE / "callbacks/normal_call.json").read_text())
    assert house.params("/voice").keys() == sample[0]["params"].keys()
    assert len(sample[0]["params"]) == 27
    assert house.params("/status").keys() == sample[-1]["params"].keys()
    assert house.params("/status")["CallStatus"] == call.status == "completed"
    assert (call.verbs, call.problems, call.violations) == (["Hangup"], [], [])


def test_a_stream_ends_when_the_server_closes_and_the_document_goes_on() -> None:
    house = House({"/voice": STREAM + '<Redirect method="POST">/resume/1</Redirect>', "/resume/1": "<Hangup/>"}, greet_and_close)
    call = place(house)
    stream = call.streams[0]
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert (stream.end, stream.close_code, call.violations, call.problems) == ("server-closed", 1000, [], [])
    assert [(heard.clip_name, heard.complete) for heard in call.heard] == [("greeting", True)]
    (came, _), (back, name) = stream.marks_received[0], stream.marks_returned[0]
    assert name == "end"
    assert back - came == pytest.approx(CLIPS["greeting"].ms / 1000, abs=0.021)
    assert [params["StreamEvent"] for path, params in house.asked if path == "/stream"] == ["stream-started", "stream-stopped"]
    assert house.params("/resume/1")["CallStatus"] == "in-progress"
    assert call.first_sound_ms is not None
    assert call.first_sound_ms < 100


def test_connect_with_action_asks_the_action_and_runs_nothing_behind_it() -> None:
    action = STREAM.replace("<Connect>", '<Connect action="/after">')
    call = place(House({"/voice": action + "<Say>never</Say>", "/after": "<Hangup/>"}, greet_and_close))
    assert call.verbs == ["Connect", "Hangup"]


def test_the_disclosure_is_spoken_and_heard_before_the_stream_opens() -> None:
    disclosure = CLIPS["disclosure"]
    call = place(House({"/voice": f"<Say>{disclosure.text}</Say>{STREAM}"}, greet_and_close))
    assert [heard.clip_name for heard in call.heard] == ["disclosure", "greeting"]
    answered, started = (next(m.at for m in call.timeline if m.what == what) for what in ("answered", "stream-started"))
    assert started - answered == pytest.approx(disclosure.ms / 1000, abs=0.001)


def test_media_come_every_20_ms_with_the_counters_of_the_real_thing() -> None:
    seen: list[dict[str, Any]] = []
    times: list[float] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while len(seen) < 100 and (text := await server.receive()) is not None:
            seen.append(json.loads(text))
            times.append(asyncio.get_running_loop().time())
        await server.close()

    place(House({"/voice": STREAM}, listen))
    sample = json.loads((WIRE / "media_streams/from_twilio.json").read_text())[2]
    assert [m["sequenceNumber"] for m in seen] == [str(n) for n in range(2, 102)]
    assert [m["media"]["chunk"] for m in seen] == [str(n) for n in range(1, 101)]
    assert seen[0].keys() == sample.keys()
    assert seen[0]["media"].keys() == sample["media"].keys()
    stamps = [int(m["media"]["timestamp"]) for m in seen]
    assert 59 <= stamps[0] <= 79
    assert {b - a for a, b in pairwise(stamps)} == {20}
    assert times[-1] - times[0] == pytest.approx(99 * 0.02, abs=1e-6)
    assert all(len(base64.b64decode(m["media"]["payload"])) == 160 for m in seen)


def test_the_caller_acts_on_what_was_played_and_not_on_what_was_sent() -> None:
    """The agent sends 17 s of speech in one message; the caller interrupts 3.2 s into hearing it."""
    spoken = bytearray()

    async def talk(server: ServerEnd) -> None:
        sid = await opened(server)
        await asyncio.sleep(1.0)
        await server.send(clip_message(sid, CLIPS["reset_steps"].ulaw))
        while (text := await server.receive()) is not None:
            message = json.loads(text)
            if message["event"] == "media":
                frame = base64.b64decode(message["media"]["payload"])
                if frame != b"\xff" * 160:
                    spoken.extend(frame)
                    await server.send(json.dumps({"event": "clear", "streamSid": sid}))

    steps = (Step(Heard("reset_steps", into_s=3.2), Say("already_tried")), Step(Start(3.0), HangUp()))
    call = place(House({"/voice": STREAM}, talk), *steps)
    began = call.phone.playout.first_sound(call.streams[0].started_at)
    says = next(moment.at for moment in call.timeline if moment.what == "caller-says")
    assert began is not None
    assert says - began == pytest.approx(3.2, abs=0.1)
    assert CLIPS["already_tried"].ulaw.rstrip(b"\xff")[:800] in bytes(spoken)
    assert call.clears[0].dropped_ms > 10_000
    assert call.sound_after_clears_ms[0] == 0
    (cut,) = (heard for heard in call.heard if heard.clip_name == "reset_steps")
    assert not cut.complete
    assert cut.heard_to_ms == pytest.approx(3200, abs=250)
    assert CLIPS["already_tried"].ulaw in call.said_audio()


def test_a_clear_sends_every_mark_back_at_once_and_in_order() -> None:
    back: list[tuple[float, str]] = []
    cleared_at = 0.0

    async def talk(server: ServerEnd) -> None:
        nonlocal cleared_at
        sid, now = await opened(server), asyncio.get_running_loop().time
        for name in ("1:200", "1:400", "1:600"):
            await server.send(clip_message(sid, CLIPS["reset_steps"].ulaw[:1600]))
            await server.send(mark_message(sid, name))
        while len(back) < 4 and (text := await server.receive()) is not None:
            if (message := json.loads(text))["event"] != "mark":
                continue
            back.append((now(), message["mark"]["name"]))
            if len(back) == 1:
                await asyncio.sleep(0.1)
                cleared_at = now()
                await server.send(json.dumps({"event": "clear", "streamSid": sid}))
                await server.send(mark_message(sid, "2:0"))
        await server.close()

    call = place(House({"/voice": STREAM}, talk))
    assert [name for _, name in back] == ["1:200", "1:400", "1:600", "2:0"]
    assert [at for at, _ in back[1:]] == pytest.approx([cleared_at] * 3, abs=1e-6)
    assert back[0][0] - call.streams[0].started_at == pytest.approx(0.2, abs=0.021)
    assert call.clears[0].marks == ("1:400", "1:600")


def test_keys_arrive_as_dtmf_and_a_hang_up_as_stop() -> None:
    seen: list[dict[str, Any]] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while (text := await server.receive()) is not None:
            if (message := json.loads(text))["event"] != "media":
                seen.append(message)

    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>"}, listen)
    call = place(house, Step(Start(0.5), Press("0#")), Step(Start(0.5), HangUp()))
    assert [m["dtmf"]["digit"] for m in seen if m["event"] == "dtmf"] == ["0", "#"]
    samples = {m["event"]: m for m in json.loads((WIRE / "media_streams/from_twilio.json").read_text())}
    assert all(m.keys() == samples[m["event"]].keys() for m in seen)
    assert seen[-1]["event"] == "stop"
    assert call.verbs == ["Connect"]
    assert [path for path, _ in house.asked] == ["/voice", "/stream", "/stream", "/status"]


@pytest.mark.parametrize(("manner", "stops", "end"), [("stop", 1, "hung-up"), ("no-stop", 0, "hung-up"), ("vanish", 0, "vanished")])
def test_a_caller_leaves_politely_without_stop_or_by_reset(manner: str, stops: int, end: str) -> None:
    seen: list[str] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while (text := await server.receive()) is not None:
            seen.append(json.loads(text)["event"])

    async def leave(call: TwilioCall) -> None:
        await call.wait_for("stream-started")
        await asyncio.sleep(1.0)
        call.hang_up(manner)

    call = place(House({"/voice": STREAM}, listen), meanwhile=leave)
    assert seen.count("stop") == stops
    assert (call.streams[0].end, call.status) == (end, "completed")


def test_a_broken_stream_leaves_the_caller_on_the_line() -> None:
    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while await server.receive() is not None:
            pass

    async def breaks(call: TwilioCall) -> None:
        await call.wait_for("stream-started")
        await asyncio.sleep(1.0)
        call.break_stream()

    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>", "/resume": "<Hangup/>"}, listen)
    call = place(house, meanwhile=breaks)
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert [params["StreamEvent"] for path, params in house.asked if path == "/stream"] == ["stream-started", "stream-error"]


def test_a_refused_upgrade_costs_the_stream_and_not_the_call() -> None:
    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>", "/resume": "<Hangup/>"})
    call = place(house)
    assert [problem.code for problem in call.problems] == [31920]
    assert call.streams[0].end == "refused"
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert house.params("/stream")["StreamEvent"] == "stream-error"


@pytest.mark.parametrize(("url", "code"), [("ws://voice.example.com/media", 31922), ("wss://voice.example.com/media?token=1", 31920)])
def test_a_stream_url_is_wss_and_carries_no_query(url: str, code: int) -> None:
    call = place(House({"/voice": f'<Connect><Stream url="{url}"/></Connect>'}, greet_and_close), allow_ws=False)
    assert [problem.code for problem in call.problems] == [code]


def test_what_twilio_would_warn_about_is_kept_and_the_call_goes_on() -> None:
    async def misbehave(server: ServerEnd) -> None:
        sid = await opened(server)
        await server.send(b"\xff" * 160)
        await server.send(json.dumps({"event": "clear", "streamSid": "MZ" + "0" * 32}))
        await server.send(json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": ""}}))
        await server.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": "####"}}))
        await server.send(clip_message(sid, CLIPS["goodbye"].ulaw))
        await asyncio.sleep(3.0)
        await server.close()

    call = place(House({"/voice": STREAM}, misbehave))
    assert [violation.code for violation in call.violations] == [31950, 31951, 31951, 31951]
    assert call.clears == []
    assert [heard.clip_name for heard in call.heard] == ["goodbye"]


# ---- fallbacks and limits


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(500, "text/xml", b""), 11200),
        (Answer(200, "application/json", b"{}"), 12300),
        (Answer(200, "text/xml", b"<Response><Shout/></Response>"), 12200),
        (Answer(200, "text/xml", b"<Response>" + b" " * 65536 + b"</Response>"), 11750),
        (Answer(302, "", b"", "/voice"), 11215),
        (20.0, 11205),
    ],
)
def test_a_document_that_cannot_be_had_sends_the_call_to_the_fallback(answer: Answer | float, code: int) -> None:
    house = House({"/voice": answer, "/fallback": "<Hangup/>"})
    call = place(house, fallback_url=f"{HOUSE}/fallback")
    assert [problem.code for problem in call.problems] == [code]
    asked = house.params("/fallback")
    assert (asked["ErrorCode"], asked["ErrorUrl"]) == (str(code), f"{HOUSE}/voice")
    assert (call.verbs, call.status) == (["Hangup"], "completed")


def test_without_a_fallback_the_caller_hears_an_apology_and_the_call_ends() -> None:
    call = place(House({"/voice": Answer(500, "text/html", b"")}))
    assert [problem.code for problem in call.problems] == [11200]
    assert (call.verbs, call.status) == ([], "completed")


def test_documents_that_go_in_a_circle_are_stopped() -> None:
    call = place(House({"/voice": "<Redirect>/voice</Redirect>"}))
    assert call.problems[-1].code == 11215


def test_a_redirect_answer_is_followed_and_signed_anew() -> None:
    house = House({"/voice": Answer(307, "", b"", "/voice/"), "/voice/": "<Hangup/>"})
    assert place(house).verbs == ["Hangup"]
    assert [path for path, _ in house.asked][:2] == ["/voice", "/voice/"]


def test_duplicates_of_the_first_webhook_must_be_answered_alike() -> None:
    house = House({"/voice": "<Pause/><Hangup/>"})
    call = place(house, duplicates=3)
    assert [path for path, _ in house.asked].count("/voice") == 3
    assert (len(call.documents), call.problems) == (3, [])


def test_a_caller_who_leaves_during_the_webhook_hears_nothing_of_its_answer() -> None:
    async def leave(call: TwilioCall) -> None:
        await call.wait_for("asks")
        call.hang_up()

    house = House({"/voice": 1.0})
    call = place(house, meanwhile=leave)
    assert (call.verbs, call.status, len(call.documents)) == ([], "completed", 1)
    assert house.params("/status")["CallDuration"] == "0"


def test_a_callback_answered_badly_is_a_problem() -> None:
    call = place(House({"/voice": "<Hangup/>", "/status": Answer(404, "text/html", b"")}))
    assert [(problem.code, urlsplit(problem.url).path) for problem in call.problems] == [(11200, "/status")]


def test_a_rejected_call_was_never_answered() -> None:
    house = House({"/voice": '<Reject reason="busy"/>'})
    call = place(house)
    assert (call.status, house.params("/status")["CallDuration"]) == ("busy", "0")


# ---- colleagues


def dial(nouns: str, **attributes: str) -> str:
    written = " ".join(f'{name}="{value}"' for name, value in {"action": "/dialled", "timeout": "20", **attributes}.items())
    return f"<Dial {written}>{nouns}</Dial>"


EVENTS = 'statusCallback="https://voice.example.com/child" statusCallbackEvent="initiated ringing answered completed"'
RESULT = ("DialCallStatus", "DialBridged", "DialCallDuration")


def test_a_colleague_hears_the_whisper_first_and_then_the_caller() -> None:
    whisper = '<Gather action="/accept" numDigits="1"><Say>Support call. Press 1 to accept.</Say></Gather><Hangup/>'
    number = f'<Number url="/whisper" {EVENTS}>{NUMBER}</Number>'
    house = House({"/voice": dial(number, callerId="+18005550199"), "/whisper": whisper, "/accept": "", "/dialled": "<Hangup/>"})
    call = place(house, Step(Heard("human_hello"), Say("cannot_log_in")), humans={NUMBER: Human(rings_s=3, talks_s=8)})
    (attempt,) = call.dials
    assert (attempt.bridged, attempt.status, attempt.whispered) == (True, "completed", ["Support call. Press 1 to accept."])
    assert CLIPS["cannot_log_in"].ulaw in attempt.heard
    assert [heard.clip_name for heard in call.heard] == ["human_hello"]
    assert [params["CallStatus"] for path, params in house.asked if path == "/child"] == [
        "initiated",
        "ringing",
        "in-progress",
        "completed",
    ]
    assert [params["SequenceNumber"] for path, params in house.asked if path == "/child"] == ["0", "1", "2", "3"]
    assert house.params("/whisper").keys() == whisper_sample().keys() | {"Caller", "Called"}
    assert house.params("/accept")["Digits"] == "1"
    result = house.params("/dialled")
    assert (result["DialCallStatus"], result["DialBridged"], result["CallStatus"]) == ("completed", "true", "in-progress")
    assert int(result["DialCallDuration"]) >= 8


def whisper_sample() -> dict[str, str]:
    rows = json.loads((WIRE / "callbacks/transfer_answered.json").read_text())
    return next(row["params"] for row in rows if "whisper" in row["path"])


@pytest.mark.parametrize(
    ("human", "status", "lasts"),
    [
        (Human("busy", rings_s=1), "busy", 1),
        (Human("no-answer"), "no-answer", 20),
        (Human("failed", rings_s=0), "failed", 0),
        (Human(rings_s=25), "no-answer", 20),
    ],
)
def test_a_colleague_who_cannot_be_had_is_told_to_the_action(human: Human, status: str, lasts: float) -> None:
    house = House({"/voice": dial(NUMBER), "/dialled": "<Hangup/>"})
    call = place(house, anyone=human)
    result = house.params("/dialled")
    assert [result.get(name) for name in RESULT] == [status, "false", None]
    ringing, asked = (next(m.at for m in call.timeline if m.what == what) for what in ("ringing", "ended"))
    assert asked - ringing == pytest.approx(lasts, abs=0.01)


def test_a_colleague_who_does_not_accept_is_never_joined() -> None:
    house = House(
        {"/voice": dial(f'<Number url="/whisper">{NUMBER}</Number>'), "/whisper": "<Gather><Say>Press 1.</Say></Gather><Hangup/>"}
    )
    call = place(house, anyone=Human(presses=""))
    assert [house.params("/dialled")[name] for name in RESULT[:2]] == ["completed", "false"]
    assert not call.dials[0].bridged


def test_numbers_ring_together_or_in_order() -> None:
    nouns = f"<Number>{NUMBER}</Number><Number>{OTHER}</Number>"
    humans = {NUMBER: Human("busy", rings_s=1), OTHER: Human(rings_s=2, talks_s=1)}
    for sequential, expected in (("false", ["busy", "completed"]), ("true", ["busy", "completed"])):
        call = place(House({"/voice": dial(nouns, sequential=sequential), "/dialled": "<Hangup/>"}), humans=humans)
        assert [attempt.status for attempt in call.dials] == expected
    call = place(House({"/voice": dial(nouns), "/dialled": "<Hangup/>"}), humans={NUMBER: Human(rings_s=9), OTHER: Human(rings_s=2)})
    assert [attempt.status for attempt in call.dials] == ["canceled", "completed"]


def test_a_caller_who_gives_up_while_it_rings_cancels_the_other_leg() -> None:
    async def leave(call: TwilioCall) -> None:
        await call.wait_for("ringing")
        await asyncio.sleep(1)
        call.hang_up()

    house = House({"/voice": dial(f"<Number {EVENTS}>{NUMBER}</Number>")})
    call = place(house, meanwhile=leave, anyone=Human(rings_s=9))
    assert (call.dials[0].status, call.dials[0].events) == ("canceled", ["initiated", "ringing", "completed"])
    assert [path for path, _ in house.asked] == ["/voice", "/child", "/child", "/child", "/status"]


def test_a_foreign_caller_id_is_a_problem() -> None:
    call = place(House({"/voice": dial(NUMBER, callerId="+15550001111")}), anyone=Human("busy"))
    assert 13214 in [problem.code for problem in call.problems]


# ---- voicemail

PROMPT = CLIPS["voicemail_prompt"]
BOX = f'<Say>{PROMPT.text}</Say><Record action="/box" maxLength="120" playBeep="true"/><Say>no message</Say>'


def test_the_caller_speaks_after_the_beep_and_hangs_up() -> None:
    house = House({"/voice": BOX, "/box": "<Hangup/>"})
    call = place(house)
    (recording,) = call.recordings
    assert CLIPS["callback_message"].ulaw in recording.ulaw
    assert recording.why == "hangup"
    told = house.params("/box")
    assert (told["CallStatus"], told["Digits"]) == ("completed", "hangup")
    assert int(told["RecordingDuration"]) == pytest.approx(CLIPS["callback_message"].ms / 1000 + 0.7, abs=1)
    assert [heard.clip_name for heard in call.heard][:1] == ["voicemail_prompt"]


def test_a_silent_caller_leaves_no_recording_to_ask_about() -> None:
    house = House({"/voice": BOX})
    call = place(house, voicemail=None)
    assert call.recordings[0].why == "silence"
    assert call.verbs == ["Say", "Record", "Say"]
    assert "/box" not in [path for path, _ in house.asked]


def test_a_key_ends_the_message_and_the_call_goes_on() -> None:
    house = House({"/voice": BOX.replace("<Record ", '<Record finishOnKey="#" '), "/box": "<Say>thanks</Say>"})
    call = place(house, Step(Heard("voicemail_prompt", then_s=1.0), Say("no_thanks")), Step(Start(2.0), Press("#")), voicemail=None)
    assert call.recordings[0].why == "key"
    assert (house.params("/box")["Digits"], call.verbs[-1]) == ("#", "Say")


def test_keys_pressed_during_a_prompt_end_it_and_go_to_the_action() -> None:
    menu = f'<Gather action="/chosen" numDigits="1" timeout="4"><Say>{PROMPT.text}</Say></Gather><Say>nothing</Say>'
    house = House({"/voice": menu, "/chosen": "<Hangup/>"})
    call = place(house, Step(Start(1.0), Press("2")))
    assert (house.params("/chosen")["Digits"], call.verbs) == ("2", ["Gather", "Hangup"])
    assert call.phone.playout.sound_ms(call.phone.origin, call.phone.origin + 60) < 1100
    silent = place(House({"/voice": menu}))
    assert silent.verbs == ["Gather", "Say"]


# ---- ten minutes


def test_ten_minutes_of_talk_take_seconds_and_lose_no_frame() -> None:
    """30,000 frames up; one turn of agent speech every 10 s down, in the vendor's odd pieces."""
    frames = 0

    async def talk(server: ServerEnd) -> None:
        nonlocal frames
        sid = await opened(server)

        async def speak() -> None:
            for _ in range(58):
                ulaw = CLIPS["opening_hours"].ulaw
                for start in range(0, len(ulaw), 557):
                    await server.send(clip_message(sid, ulaw[start : start + 557]))
                await server.send(mark_message(sid, "turn"))
                await asyncio.sleep(10)

        speaking = asyncio.create_task(speak())
        while (text := await server.receive()) is not None and frames < 30_000:
            frames += '"event":"media"' in text
        speaking.cancel()
        await server.close()

    began = time.process_time()
    call = place(House({"/voice": STREAM}, talk))
    assert time.process_time() - began < 10
    assert (frames, call.violations, call.problems) == (30_000, [], [])
    assert [heard.clip_name for heard in call.heard] == ["opening_hours"] * 58
    assert all(heard.complete for heard in call.heard)
    assert len(call.streams[0].marks_returned) == 58
    ended = call.streams[0].ended_at
    assert ended is not None
    assert ended - call.streams[0].started_at == pytest.approx(600, abs=0.1)
    assert len(call.said_audio()) == len(call.heard_audio())


# ---- real sockets


@asynccontextmanager
async def serving(
    *, media: Callable[[web.Request], Awaitable[web.StreamResponse]], documents: Mapping[str, str]
) -> AsyncIterator[tuple[str, list[Any]]]:
    """A small real server; `{BASE}` in a document is its own address. Gives the address and what was asked."""
    asked: list[Any] = []
    base = ""

    async def document(request: web.Request) -> web.Response:
        form = dict(await request.post())
        valid = RequestValidator(TOKEN).validate(base + request.path_qs, form, request.headers["X-Twilio-Signature"])
        asked.append((request.path, form, valid, request.headers.copy(), dict(request.cookies)))
        body = documents.get(request.path)
        if body is None:
            return web.Response(status=204)
        response = web.Response(text=f"<Response>{body.replace('{BASE}', base)}</Response>", content_type="text/xml")
        response.set_cookie("seen", "1")
        return response

    app = web.Application()
    app.router.add_post("/{path:(?!media).*}", document)
    app.router.add_get("/media", media)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    base = f"http://{host}:{port}"
    try:
        yield base, asked
    finally:
        await runner.cleanup()


def stream_document() -> str:
    return (
        '<Connect><Stream url="/media" statusCallback="{BASE}/stream"><Parameter name="token" value="t"/></Stream></Connect>'
        "<Redirect>/resume</Redirect>"
    )


async def test_a_whole_call_over_real_sockets(tmp_path: Path) -> None:
    upgrades: list[Mapping[str, str]] = []
    starts: list[dict[str, Any]] = []

    async def media(request: web.Request) -> web.StreamResponse:
        upgrades.append(request.headers.copy())
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            said = json.loads(message.data)
            if said["event"] == "start":
                starts.append(said["start"])
                await socket.send_str(clip_message(said["streamSid"], CLIPS["goodbye"].ulaw))
                await socket.send_str(mark_message(said["streamSid"], "end"))
            if said["event"] == "mark":
                await socket.close()
        return socket

    documents = {"/voice": stream_document(), "/resume": "<Hangup/>"}
    async with serving(media=media, documents=documents) as (base, asked):
        call = TwilioCall(webhook_url=f"{base}/voice", status_url=f"{base}/status", auth_token=TOKEN, caller=Caller(()))
        await call.run()
    assert (call.problems, call.violations, call.status) == ([], [], "completed")
    assert sorted(path for path, *_ in asked) == ["/resume", "/status", "/stream", "/stream", "/voice"]
    assert all(valid for _, _, valid, _, _ in asked)
    assert next(cookies for path, _, _, _, cookies in asked if path == "/resume") == {"seen": "1"}
    (upgrade,) = upgrades
    assert RequestValidator(TOKEN).validate(base.replace("http", "ws") + "/media", {}, upgrade["X-Twilio-Signature"])
    assert not {"Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} & set(upgrade)
    assert starts[0]["customParameters"] == {"token": "t"}
    assert [heard.clip_name for heard in call.heard] == ["goodbye"]
    with wave.open(io.BytesIO(call.write_wav(tmp_path / "call.wav").read_bytes())) as tape:
        assert tape.getnframes() == len(call.said_audio())


async def test_compression_is_offered_and_an_agreement_is_a_violation() -> None:
    async def media(request: web.Request) -> web.StreamResponse:
        assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        await socket.receive()
        await socket.close()
        return socket

    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, _):
        web_ = Internet(offer_compression=True)
        call = await TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(()), web=web_).run()
    assert [violation.code for violation in call.violations] == [31924]


async def test_a_refused_upgrade_over_real_sockets_goes_on_with_the_document() -> None:
    async def media(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, asked):
        call = await TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(())).run()
    assert [(problem.code, problem.why) for problem in call.problems] == [(31920, "handshake answered with 403")]
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert next(form for path, form, *_ in asked if path == "/stream")["StreamEvent"] == "stream-error"


async def test_a_vanishing_caller_is_a_reset_and_no_close_frame() -> None:
    ends: asyncio.Queue[tuple[WSMsgType, int | None]] = asyncio.Queue()

    async def media(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        ends.put_nowait((message.type, socket.close_code))
        return socket

    async with serving(media=media, documents={"/voice": stream_document()}) as (base, asked):
        call = TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(()))
        running = asyncio.create_task(call.run())
        await call.wait_for("stream-started")
        await asyncio.sleep(0.2)
        call.hang_up("vanish")
        await running
        async with asyncio.timeout(5):
            _, code = await ends.get()
    assert code == 1006
    assert call.streams[0].end == "vanished"
    assert "/resume" not in [path for path, *_ in asked]


async def test_nobody_at_home_is_11205_after_a_second_try() -> None:
    call = TwilioCall(webhook_url="http://127.0.0.1:9/voice", auth_token=TOKEN, caller=Caller(()))
    running = asyncio.create_task(call.run())
    await call.wait_for("problem")
    call.hang_up()
    await running
    assert call.problems[0].code == 11205
    assert call.status == "completed"


async def test_public_addresses_reach_the_house_through_a_tunnel_with_their_own_signatures() -> None:
    hosts: list[str] = []

    async def media(request: web.Request) -> web.StreamResponse:
        hosts.append(request.headers["Host"])
        assert RequestValidator(TOKEN).validate(f"wss://{hosts[0]}/media", {}, request.headers["X-Twilio-Signature"])
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.receive()
        await socket.close()
        return socket

    documents = {"/voice": STREAM + "<Hangup/>"}
    async with serving(media=media, documents=documents) as (base, asked):
        network = Internet(tunnel={HOUSE: base})
        call = await TwilioCall(webhook_url=f"{HOUSE}/voice", auth_token=TOKEN, caller=Caller(()), web=network, allow_ws=False).run()
    assert hosts == ["voice.example.com"]
    path, form, _, headers, _ = asked[0]
    assert headers["Host"] == "voice.example.com"
    assert RequestValidator(TOKEN).validate(HOUSE + path, form, headers["X-Twilio-Signature"])
    assert (call.verbs, call.problems) == (["Connect", "Hangup"], [])


def test_a_shared_key_signs_with_sha256_and_names_itself() -> None:
    headers = signature_headers("whsec", f"{HOUSE}/voice", {"CallSid": "CA1"}, "sha256")
    assert headers["X-Twilio-Webhooks-Signature-Settings"].endswith("algorithm=HMAC_SHA256")
    assert RequestValidator("whsec").validate(f"{HOUSE}/voice", {"CallSid": "CA1"}, headers["X-Twilio-Signature"], "HMAC_SHA256")


def test_words_of_a_say_without_a_clip_take_the_time_they_would() -> None:
    text = "Nobody ever recorded this."
    assert by_text(text) is None
    call = place(House({"/voice": f"<Say>{text}</Say>"}))
    said = {moment.what: moment.at for moment in call.timeline}
    assert said["said"] - said["say"] == pytest.approx(len(text) * 0.06)
