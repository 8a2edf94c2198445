"""What callers type: a person for 0 where the line says so, entries for an agent that listens, and no trace of a digit anywhere."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pytest_django import Settings

from bridge.actions import Action, AskForPerson, Noted, TellAgent
from bridge.core import BridgeCore
from bridge.rules import Rules
from bridge.sandbox.script import PLAIN, TYPES_A_NUMBER
from tests.bridge.test_core import CLIPS, a_call, run_until
from tests.bridge.virtual_time import Notebook, OneCall, TwilioPipe, carry_a_call

LISTENS = {"agent_speaks_first": False, "keypad_digits": 6}


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


def typed(core: BridgeCore, keys: str, *, at: float = 1.0, every: float = 0.2) -> list[Action]:
    out: list[Action] = []
    for n, key in enumerate(keys):
        run_until(core, at + n * every, out)
        out += core.key_pressed(key, at + n * every)
    return out


def told(actions: list[Action]) -> list[str]:
    return [action.message["message"]["content"].split(": ")[1].split(".")[0] for action in actions if isinstance(action, TellAgent)]


def test_an_entry_is_told_when_its_end_key_is_pressed() -> None:
    assert told(typed(a_call(**LISTENS), "12#34#")) == ["12", "34"]


def test_an_entry_is_told_when_it_has_all_its_digits() -> None:
    assert told(typed(a_call(**LISTENS), "1234567")) == ["123456"]


def test_an_entry_is_told_after_a_pause_of_three_seconds() -> None:
    core = a_call(**LISTENS)
    out = typed(core, "12")
    run_until(core, 4.1, out)
    assert told(out) == []
    run_until(core, 4.3, out)
    assert told(out) == ["12"]


def test_without_an_end_key_all_twelve_keys_are_digits_and_letters_never_are() -> None:
    core = a_call(**LISTENS, keypad_end="none")
    out = typed(core, "1*A#D")
    run_until(core, 9.0, out)
    assert told(out) == ["1*#"]


def test_an_end_key_alone_says_nothing() -> None:
    assert told(typed(a_call(**LISTENS), "##")) == []


def test_the_model_is_asked_to_answer_what_was_typed() -> None:
    (message,) = [action.message for action in typed(a_call(**LISTENS), "47#") if isinstance(action, TellAgent)]
    assert (message["type"], message["message"]["role"], message["triggerResponseEnabled"]) == ("add-message", "system", True)


def test_an_agent_that_does_not_listen_is_told_nothing() -> None:
    core = a_call(agent_speaks_first=False)
    out = typed(core, "4711#")
    run_until(core, 20.0, out)
    assert told(out) == []


def test_what_was_typed_before_the_agent_is_there_is_told_when_it_comes() -> None:
    core = BridgeCore(Rules(keypad_digits=6), clips=CLIPS, now=0.0)
    assert told(typed(core, "47#", at=0.1, every=0.1)) == []
    assert told(core.agent_connected(0.6)) == ["47"]
    assert told(core.agent_connected(0.7)) == []


def test_a_caller_on_the_way_out_tells_the_agent_nothing_more() -> None:
    core = a_call(**LISTENS)
    typed(core, "12")
    core.leave_after_last_word("handed-over", 1.5)
    assert told(typed(core, "34#", at=1.6)) == []


# -- 0 calls a person ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "asks"), [("0", 1), ("10", 1), ("12", 0), ("00", 1)])
@pytest.mark.parametrize("line_says_so", [True, False])
def test_0_calls_a_person_when_the_line_says_so(keys: str, asks: int, line_says_so: bool) -> None:
    out = typed(a_call(agent_speaks_first=False, zero_for_person=line_says_so), keys)
    assert out.count(AskForPerson()) == (asks if line_says_so else 0)


@pytest.mark.parametrize(("keys", "asks", "entries"), [("0#", 1, []), ("0", 1, []), ("10#", 0, ["10"]), ("001#", 0, ["001"])])
def test_for_an_agent_that_listens_a_0_calls_a_person_when_it_is_all_of_an_entry(keys: str, asks: int, entries: list[str]) -> None:
    core = a_call(**LISTENS)
    out = typed(core, keys)
    run_until(core, 6.0, out)
    assert (out.count(AskForPerson()), told(out)) == (asks, entries)


def test_where_0_calls_nobody_it_is_a_digit() -> None:
    assert told(typed(a_call(**LISTENS, zero_for_person=False), "0#")) == ["0"]


# -- nothing is kept -----------------------------------------------------------------------------------------------------


def everything_kept(call: OneCall) -> str:
    assert call.notebook.closing is not None
    return repr((call.notebook.notes, call.notebook.closing, call.notebook.obeyed, call.notebook.waiting))


def test_the_agent_understands_what_was_typed_and_we_keep_no_digit_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    call = carry_a_call(TYPES_A_NUMBER, notebook=Notebook(admission={"keypad_digits": 20}))
    (message,) = call.evidence.details("in", "add-message")
    assert "471108" in message["message"]["content"]
    assert [final.clip_name for final in call.phone.heard] == ["greeting", "account_locked", "goodbye"]
    assert call.notebook.details("keypad-pressed")[-1] == {"count": 7}
    assert call.notebook.details("keypad-told") == [{}]
    for digits in ("471108", "4711", "4, 7", "'4'"):
        assert digits not in everything_kept(call) + caplog.text


def test_an_agent_that_does_not_listen_hears_of_no_key() -> None:
    async def press(pipe: TwilioPipe) -> None:
        await asyncio.sleep(1.0)
        for digit in "4111111111111111":
            await pipe.send(f'{{"event":"dtmf","streamSid":"MZ1","dtmf":{{"digit":"{digit}"}}}}')

    call = carry_a_call(PLAIN, meddle=press)
    assert call.evidence.details("in", "add-message") == []
    assert "4111" not in everything_kept(call)


def test_a_message_that_holds_digits_is_never_printed() -> None:
    (message,) = [action for action in typed(a_call(**LISTENS), "4711#") if isinstance(action, TellAgent)]
    assert "4711" not in repr(message)
    assert "4711" not in repr([action for action in typed(a_call(**LISTENS), "4711#") if isinstance(action, Noted)])
