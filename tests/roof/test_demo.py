"""What the demo gives its household, what it refuses, and that a call played wrongly is told from a right one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from bridge.sandbox import sphinx
from bridge.sandbox.ear import Final
from bridge.sandbox.script import TECHFLOW, Caller
from supportvoice import demo
from supportvoice.demo import WRONGS, Secrets, Wrong, household
from supportvoice.verdict import Check, Evidence, Remembered, judge
from tests.bridge.virtual_time import carry_a_call

SID = "CA" + "1" * 32
DISCLOSURE = Final("disclosure", "", 0.0, 0.0, 0.0, 1.0, complete=True)
UNDERSTOOD, HEARD = (
    "the agent understood every word of the caller from the audio that arrived",
    "the caller heard the agent, the disclosure first",
)


def env_of_the_household(directory: Path) -> dict[str, str]:
    shared = Secrets(vapi_key="of-this-run")
    urls = {"vapi_url": "http://vapi", "twilio_url": "http://twilio", "tool_host": "h:1"}
    stack = household(directory=directory, port=1, shared=shared, say=lambda _: None, **urls)
    return dict(stack.env)


def test_the_household_has_the_database_of_the_settings_and_vendors_of_its_own(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATABASE_URL = "postgres://me@db.example/calls"
    for name in ("DATABASE_URL", "VAPI_API_KEY", "REDIS_URL"):
        monkeypatch.setenv(f"{name}_FILE", "/run/secrets/of-production")
    monkeypatch.setenv("ALLOWED_HOSTS", "voice.example.com")
    env = env_of_the_household(tmp_path)
    assert (env["DATABASE_URL"], env["VAPI_API_KEY"], env["ALLOWED_HOSTS"]) == ("postgres://me@db.example/calls", "of-this-run", "*")
    assert {env[f"{name}_FILE"] for name in ("DATABASE_URL", "VAPI_API_KEY", "REDIS_URL")} == {""}


@pytest.mark.parametrize("allow_insecure", [False, True])
def test_there_is_no_demo_in_production(settings: Settings, allow_insecure: bool) -> None:
    settings.DEBUG, settings.ALLOW_INSECURE = False, allow_insecure
    with pytest.raises(CommandError, match=r"^The demo does not run with DEBUG=0: its vendors are a sandbox\.$") as refused:
        call_command("demo", "--once")
    assert refused.value.returncode == 2


@pytest.mark.parametrize(
    ("late_ms", "kept", "calls"),
    [((900, 900, 10), False, 3), ((900, 10, 10), False, 2), ((10, 10, 10), False, 1), ((900, 10, 10), True, 1)],
)
async def test_a_wrong_call_counts_only_if_the_machine_kept_time(
    monkeypatch: pytest.MonkeyPatch, late_ms: tuple[int, ...], kept: bool, calls: int
) -> None:
    late, said = iter(late_ms), list[str]()

    async def one_call(house: Any, say: Any) -> Any:
        return SimpleNamespace(late_ms=next(late)), [Check("right", kept, "")]

    monkeypatch.setattr(demo, "_one_call", one_call)
    house: Any = SimpleNamespace(stack=SimpleNamespace(say=said.append))
    call, checks = await demo.place_call(house, said.append)
    assert (call.late_ms, checks[0].kept, len(said)) == (late_ms[calls - 1], kept, calls - 1)


@pytest.mark.parametrize("command", [("demo", "--once", "--ear", "words"), ("sandbox", "serve", "--ear", "words")])
def test_hearing_words_without_the_extra_is_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    settings.DEBUG = True
    monkeypatch.setattr(sphinx, "Decoder", None)
    with pytest.raises(
        CommandError, match=r"^Recognising words needs the extra `voice`: pip install -r requirements/voice\.lock\.$"
    ) as refused:
        call_command(*command)
    assert refused.value.returncode == 2


def judged(wrong: Wrong) -> dict[str, bool]:
    """The demo's call between the sandbox's vendors, without sockets or database, and what is thought of what was heard."""
    faults = replace(wrong.faults, close_after_s=60.0, close_code=1000)
    call = carry_a_call(wrong.scenario, faults=faults)
    agent = SimpleNamespace(
        request={"name": f"{SID}.0"}, evidence=call.evidence, ended_reason="", webhooks=lambda kind: call.evidence.details("hook", kind)
    )
    phone: Any = SimpleNamespace(call_sid=SID, heard=[DISCLOSURE, *call.phone.heard], timeline=call.phone.timeline, streams=[call.facts])
    phone.first_sound_ms, phone.sound_after_clears_ms, phone.violations, phone.problems = 0, [], call.facts.violations, []
    vapi: Any = SimpleNamespace(calls={"1": agent}, open_calls=list, refused=[])
    return {check.promise: check.kept for check in judge(Evidence(phone, vapi, Remembered()))}


@pytest.mark.parametrize(
    ("name", "understood", "heard"), [("", True, True), ("deaf", False, False), ("swap", False, False), ("wrong-clip", False, False)]
)
def test_every_way_to_play_it_wrongly_is_heard_in_both_directions(settings: Settings, name: str, understood: bool, heard: bool) -> None:
    settings.CHANNEL_LAYERS = {}
    kept = judged(WRONGS.get(name, Wrong()))
    assert (kept[UNDERSTOOD], kept[HEARD]) == (understood, heard)


def test_a_stuck_caller_says_what_they_wait_for() -> None:
    caller = Caller(TECHFLOW.caller)
    assert caller.waiting_for == "the end of greeting"
    assert Caller(TECHFLOW.caller[1:]).waiting_for == "3.2 s of reset_steps"
    assert Caller(()).waiting_for == ""
