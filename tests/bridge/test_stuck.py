"""Sound that is queued while nothing is sent is an alarm with the call's name."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pytest_django import Settings

from bridge.sandbox.script import PLAIN
from tests.bridge.virtual_time import TwilioPipe, carry_a_call


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


async def reads_nothing_for_two_seconds(twilio: TwilioPipe) -> None:
    await asyncio.sleep(1.5)
    twilio.read_on.clear()
    await asyncio.sleep(2.0)
    twilio.read_on.set()


def test_a_twilio_that_does_not_read_is_told_in_the_log_in_the_call_and_in_its_figures(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="bridge"):
        call = carry_a_call(PLAIN, meddle=reads_nothing_for_two_seconds)
    alarms = [record for record in caplog.records if record.getMessage() == "sound is queued and nothing is sent"]
    assert [record.__dict__["call"] for record in alarms] == ["call-test00"]
    assert call.notebook.kinds().count("audio-stuck") == 1
    assert call.notebook.closing is not None
    assert call.notebook.closing.figures["audio"]["stuck"] == 1


def test_an_ordinary_call_raises_no_alarm() -> None:
    assert "audio-stuck" not in carry_a_call(PLAIN).notebook.kinds()
