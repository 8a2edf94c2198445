"""What the consumer does with the world around the core: proofs, commands, bad company, a history that is away."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from channels.layers import channel_layers
from django.db import IntegrityError
from pytest_django import Settings

from bridge import live
from bridge.actions import Action
from bridge.consumers import ADMITTED_SOON_S
from bridge.core import BridgeCore
from bridge.ports import CallRef, Closing, Command, Conversation
from bridge.sandbox.memory import MemoryClient
from bridge.sandbox.script import PLAIN, TECHFLOW, THREE_BARGE_INS
from supportvoice.logs import FieldsFormatter
from tests.bridge.virtual_time import Meddle, Notebook, OneCall, Spoil, TwilioPipe, carry_a_call, refused_with

START = (
    '{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1",'
    '"tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}}}'
)


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


@pytest.mark.parametrize(("token", "away"), [("wrong", False), ("right", True)], ids=["wrong token", "history away"])
def test_a_stream_that_is_not_proven_is_closed_and_leaves_no_trace(token: str, away: bool) -> None:
    call = carry_a_call(PLAIN, token=token, notebook=Notebook(away=away))
    assert (call.facts.end, call.facts.close_code) == ("server-closed", 1008)
    assert (call.notebook.notes, call.notebook.closing, call.notebook.beats) == ([], None, 0)


def test_without_a_session_the_caller_hears_so_and_the_ladder_goes_on() -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(state="failed"))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "no-agent"
    assert [final.clip_name for final in call.phone.heard] == ["connecting_colleague"]


@pytest.mark.parametrize(("verb", "why"), [("hand-over", "handed-over"), ("end-call", "agent-ended"), ("hang-up", "hung-up")])
def test_a_command_is_obeyed_once_and_after_the_last_word(verb: str, why: str) -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(waiting=[Command(7, verb)]))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == why
    assert call.notebook.obeyed == [7]
    assert call.evidence.kinds("in")[-2:] == ["end-call", "close"] or call.evidence.kinds("in")[-1] == "end-call"


class Late(Notebook):
    """A history in which another command comes while it is told that the stream is over."""

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        self.waiting.append(Command(8, "hang-up"))
        await asyncio.sleep(5.0)  # in which the stream looks for commands twice
        await super().ended(ref, closing)


def test_a_stream_that_is_left_says_of_no_command_that_it_was_carried_out() -> None:
    call = carry_a_call(PLAIN, notebook=Late(waiting=[Command(7, "hang-up")]))
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.obeyed) == ("hung-up", [7])


def test_what_staff_type_is_spoken_by_the_agent() -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(waiting=[Command(1, "say", {"text": "One moment, please."})]))
    assert [said["content"] for said in call.evidence.details("in", "say")] == ["One moment, please."]
    assert "one_moment" in [final.clip_name for final in call.phone.heard]


class Awaited(Notebook):
    """A history in which staff type a sentence at once, and whose agent is being made for so long."""

    made_after_s = 2.5

    async def conversation(self, ref: CallRef) -> Conversation | None:
        """The loop's clock begins at a thousand."""
        is_made = asyncio.get_running_loop().time() >= 1000.0 + self.made_after_s
        return Conversation(0, "live" if is_made else "claimed", "vapi-1", "ws://in-memory")

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        return False

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        return [command for command in self.waiting if command.id > after]

    def done(self, ref: CallRef, command_id: int) -> None:
        assert "vapi-connected" in self.kinds()
        super().done(ref, command_id)


def test_what_staff_type_while_no_agent_is_there_waits_for_one_and_is_done_when_it_was_told() -> None:
    async def hang_up(pipe: TwilioPipe) -> None:
        await asyncio.sleep(8.0)
        pipe.server.arrived.put_nowait(
            '{"event":"stop","sequenceNumber":"9","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}'
        )

    call = carry_a_call(PLAIN, notebook=Awaited(waiting=[Command(1, "say", {"text": "One moment, please."})]), meddle=hang_up)
    assert [said["content"] for said in call.evidence.details("in", "say")] == ["One moment, please."]
    assert call.notebook.obeyed == [1]


def test_what_staff_type_is_not_done_when_no_agent_ever_comes() -> None:
    notebook = Awaited(waiting=[Command(1, "say", {"text": "One moment, please."})])
    notebook.made_after_s = float("inf")
    call = carry_a_call(PLAIN, notebook=notebook)
    assert call.notebook.closing is not None
    assert call.notebook.obeyed == []


def test_a_core_that_breaks_when_it_is_woken_ends_the_call_and_the_ladder_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: BridgeCore, now: float) -> list[Action]:
        raise ZeroDivisionError

    monkeypatch.setattr(BridgeCore, "tick", breaks)
    call = carry_a_call(PLAIN)
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.closing.raw) == ("agent-lost", "bridge error")


REFUSED = "DETAIL:  Failing row contains (7, zweiundvierzig)."


class Row(Notebook):
    """A history that will not have a row, as PostgreSQL says it."""

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        raise IntegrityError(REFUSED)


def test_a_duty_that_breaks_tells_the_log_its_kind_and_its_place_and_no_row(caplog: pytest.LogCaptureFixture) -> None:
    call = carry_a_call(PLAIN, notebook=Row())
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.closing.raw) == ("agent-lost", "bridge error")
    [record] = [record for record in caplog.records if "a duty of the stream broke" in record.message]
    printed = FieldsFormatter().format(record)
    assert "in _obey" in printed
    assert printed.endswith("\n    IntegrityError")
    assert "zweiundvierzig" not in printed


def meanwhile(*messages: str, after_s: float = 3.0) -> Meddle:
    """So many messages into the media socket at once, beside what Twilio says."""

    async def meddle(pipe: TwilioPipe) -> None:
        await asyncio.sleep(after_s)
        for message in messages:
            pipe.server.arrived.put_nowait(message)

    return meddle


def audio_figures(call: OneCall) -> dict[str, int]:
    assert call.notebook.closing is not None
    figures: dict[str, int] = call.notebook.closing.figures["audio"]
    return figures


BAD = {
    "malformed": "stammer",
    "audio": '{"event":"media","streamSid":"MZ1","media":{"payload":"!"}}',
    "other-stream": '{"event":"media","streamSid":"MZ2","media":{"payload":"AAAA"}}',
    "said-twice": '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    "key": '{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"Z"}}',
    "unknown": '{"event":"telepathy","streamSid":"MZ1"}',
}


@pytest.mark.parametrize("kind", BAD)
def test_more_than_twenty_bad_messages_in_a_row_are_not_twilio(kind: str) -> None:
    call = carry_a_call(TECHFLOW, meddle=meanwhile(*[BAD[kind]] * 21))
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.closing.raw) == ("stream-lost", "bad stream messages")
    assert audio_figures(call)[f"from_twilio.{kind}"] == audio_figures(call)["bad_messages"] == 21
    assert call.evidence.kinds("in")[-1] in ("end-call", "close")


def test_twenty_bad_messages_are_borne() -> None:
    call = carry_a_call(PLAIN, meddle=meanwhile(*[*BAD.values()] * 3, START, START))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"
    counted = {kind: count for kind, count in audio_figures(call).items() if kind.startswith("from_twilio.")}
    assert counted == {f"from_twilio.{kind}": 3 for kind in BAD} | {"from_twilio.said-twice": 5}


@pytest.mark.parametrize("first", ["media", "stop", "dtmf", "mark", "a thousand parameters"])
def test_a_stream_that_does_not_begin_with_its_start_is_refused(first: str) -> None:
    said = {
        "media": '{"event":"media","streamSid":"MZ1","media":{"payload":"AAAA"}}',
        "stop": '{"event":"stop","streamSid":"MZ1","stop":{}}',
        "dtmf": '{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"0"}}',
        "mark": '{"event":"mark","streamSid":"MZ1","mark":{"name":"x"}}',
        "a thousand parameters": START.replace(
            '"customParameters":{}', f'"customParameters":{json.dumps({str(n): "" for n in range(1000)})}'
        ),
    }
    notebook = Notebook()
    twilio = TwilioPipe()
    twilio.server.arrived.put_nowait('{"event":"connected","protocol":"Call","version":"1.0.0"}')
    twilio.server.arrived.put_nowait(said[first])
    assert refused_with(twilio, notebook) == 1008
    assert (notebook.notes, notebook.closing, notebook.beats) == ([], None, 0)


@pytest.mark.parametrize("after_s", [0.61, 0.9, 1.1, 1.9, 2.5])
def test_who_is_let_in_late_hears_a_word_meanwhile_to_its_end_and_then_the_agent(after_s: float) -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(admits_after_s=after_s))
    assert call.facts.violations == []
    first, *rest = call.phone.heard
    assert (first.clip_name, first.complete) == ("one_moment", True)
    assert ADMITTED_SOON_S <= first.started_at - call.phone.origin <= ADMITTED_SOON_S + 0.2
    assert [final.clip_name for final in rest if final.complete] == ["greeting", "opening_hours", "goodbye"]
    assert call.notebook.details("clip-played")[0]["clip"] == "one_moment"
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-ended"


def test_a_stream_that_breaks_while_it_waits_to_be_let_in_is_one_that_was_lost() -> None:
    """It is let in all the same, and somebody has to say so."""

    async def vanishes(twilio: TwilioPipe) -> None:
        await asyncio.sleep(0.5)
        twilio.refuses = True
        await twilio.server.close(1006)

    call = carry_a_call(PLAIN, notebook=Notebook(admits_after_s=2.0), meddle=vanishes)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why in ("stream-lost", "stream-dead")


def test_who_is_let_in_at_once_is_not_asked_to_wait() -> None:
    call = carry_a_call(PLAIN, notebook=Notebook(admits_after_s=0.5))
    assert "one_moment" not in [final.clip_name for final in call.phone.heard]
    assert "clip-played" not in carry_a_call(PLAIN, notebook=Notebook(admits_after_s=0.2)).notebook.kinds()


def test_a_flood_of_sound_is_dropped_and_then_the_stream_is_left() -> None:
    sound = f'{{"event":"media","streamSid":"MZ1","media":{{"payload":"{"AAAA" * 53}"}}}}'
    call = carry_a_call(TECHFLOW, meddle=meanwhile(*[sound] * 5000))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "stream-lost"
    assert audio_figures(call)["from_twilio.flood"] == 21


def test_a_keypad_flood_is_counted_and_told_a_few_times() -> None:
    keys = [f'{{"event":"dtmf","streamSid":"MZ1","dtmf":{{"digit":"{digit}"}}}}' for digit in "ABCD*#123456789" * 6]
    call = carry_a_call(PLAIN, meddle=meanwhile(*keys))
    assert audio_figures(call)["keys"] == 90
    assert [detail["count"] for detail in call.notebook.details("keypad-pressed")] == [1, 90]
    assert call.notebook.asked_for_a_person == 0


def test_a_caller_who_presses_0_is_told_and_leaves_for_a_person() -> None:
    call = carry_a_call(PLAIN, meddle=meanwhile('{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"0"}}'))
    assert call.notebook.asked_for_a_person == 1
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "handed-over"
    assert [final.clip_name for final in call.phone.heard][-1] == "connecting_colleague"
    assert call.evidence.kinds("in")[-1] in ("end-call", "close")
    assert "0" not in str(call.notebook.details("keypad-pressed"))


def test_keys_are_never_told_to_vapi() -> None:
    keys = [f'{{"event":"dtmf","streamSid":"MZ1","dtmf":{{"digit":"{digit}"}}}}' for digit in "4111111111111111"]
    call = carry_a_call(PLAIN, meddle=meanwhile(*keys))
    assert set(call.evidence.kinds("in")) <= {"end-call", "close"}


@pytest.mark.parametrize(("full", "left_by"), [(False, 7.2), (True, 8.2)], ids=["our goodbye leaves", "our goodbye cannot leave"])
def test_a_half_open_stream_is_left_within_3_s_and_vapi_told(full: bool, left_by: float) -> None:
    async def nothing_more(pipe: TwilioPipe) -> None:
        await asyncio.sleep(4.0)
        pipe.deaf_and_dumb = True
        if full:
            pipe.read_on.clear()

    call = carry_a_call(TECHFLOW, meddle=nothing_more)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "stream-dead"
    assert 6.2 <= call.left_at <= left_by
    assert call.evidence.kinds("in")[-1] in ("end-call", "close")


def test_a_few_bad_messages_are_dropped_and_counted_and_nobody_hears_of_it() -> None:
    async def stammer(pipe: TwilioPipe) -> None:
        for _ in range(12):
            await asyncio.sleep(0.8)
            pipe.server.arrived.put_nowait("stammer")

    call = carry_a_call(PLAIN, meddle=stammer)
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "opening_hours", "goodbye"]
    assert call.notebook.closing is not None
    assert call.notebook.closing.figures["audio"]["bad_messages"] == 12


def from_vapi(*messages: bytes | str, after_s: float = 3.0, apart_s: float = 0.0) -> Spoil:
    """So many messages on Vapi's socket, beside what Vapi says."""

    async def spoil(client: MemoryClient) -> None:
        await asyncio.sleep(after_s)
        for message in messages:
            client.put(message)
            if apart_s:
                await asyncio.sleep(apart_s)

    return spoil


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("not JSON", "malformed"),
        ("[]", "malformed"),
        ('{"no":"type"}', "malformed"),
        ("[" * 100_000, "malformed"),
        ('{"type":1}', "malformed"),
    ],
)
def test_more_than_twenty_bad_messages_in_a_row_are_not_vapi(message: str, kind: str) -> None:
    call = carry_a_call(PLAIN, spoil=from_vapi(*[message] * 21))
    assert call.notebook.closing is not None
    assert (call.notebook.closing.why, call.notebook.closing.raw) == ("agent-lost", "bad messages on Vapi's socket")
    assert audio_figures(call)["from_vapi.malformed"] == 21
    assert [final.clip_name for final in call.phone.heard][-1] == "connecting_colleague"
    assert "end-call" in call.evidence.kinds("in")


def test_twenty_bad_messages_of_vapi_are_borne_and_counted() -> None:
    call = carry_a_call(PLAIN, spoil=from_vapi(*["stammer"] * 20))
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "opening_hours", "goodbye"]
    assert audio_figures(call)["from_vapi.malformed"] == 20


def test_new_types_of_messages_are_no_bad_messages() -> None:
    call = carry_a_call(PLAIN, spoil=from_vapi(*[f'{{"type":"news-{n}"}}' for n in range(400)]))
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "opening_hours", "goodbye"]
    assert audio_figures(call)["from_vapi.ignored"] >= 400
    assert audio_figures(call)["bad_messages"] == 0


def test_a_thousand_messages_a_second_are_dropped_and_then_the_agent_is_given_up() -> None:
    said = [f'{{"type":"model-output","turnId":"{n}"}}' for n in range(3000)]
    call = carry_a_call(PLAIN, spoil=from_vapi(*said, apart_s=0.001))
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "agent-lost"
    assert audio_figures(call)["from_vapi.flood"] == 21
    assert call.notebook.kinds().count("agent-response-queued") < 700


def test_a_twilio_that_does_not_read_is_left_and_no_more_is_fetched_from_vapi() -> None:
    async def stop_reading(pipe: TwilioPipe) -> None:
        await asyncio.sleep(2.0)
        pipe.read_on.clear()

    burst = from_vapi('{"type":"speech-update","role":"assistant","status":"started"}', *[b"\x55" * 800] * 400, after_s=2.1)
    call = carry_a_call(PLAIN, meddle=stop_reading, spoil=burst)
    assert call.notebook.closing is not None
    assert call.notebook.closing.why == "stream-dead"
    assert call.left_at < 7
    assert audio_figures(call)["to_caller"] < 256 * 1024
    assert call.evidence.kinds("in")[-1] in ("end-call", "close")


@pytest.mark.parametrize("late_s", [0.0, 0.05, 0.15])
def test_both_sources_of_one_barge_in_clear_once(settings: Settings, late_s: float) -> None:
    """What Vapi says on the socket it says by webhook too, which comes through the channel layer, a little later."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()
    notebook, hints = Notebook(), {"user-speech-started": live.SPEECH, "interruption-confirmed": live.INTERRUPTED}

    async def webhook(pipe: TwilioPipe) -> None:
        told = 0
        while not pipe.server.closed:
            await asyncio.sleep(0.01)
            said, told = [hints[kind] for kind in notebook.kinds()[told:] if kind in hints], len(notebook.notes)
            if said:
                await asyncio.sleep(late_s)
                for hint in said:
                    await live.tell(channel_layers["default"], "CA1", hint, at=time.time())

    call = carry_a_call(THREE_BARGE_INS, notebook=notebook, meddle=webhook)
    assert len(call.facts.clears) == 3
    assert call.notebook.kinds().count("interruption-confirmed") == 3
    assert vars(channel_layers["default"])["groups"] == {}


def test_a_live_call_gives_signs_of_life() -> None:
    call = carry_a_call(PLAIN)
    assert call.notebook.beats == pytest.approx(call.seconds / 5, abs=2)
