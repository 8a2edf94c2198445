"""One house for all journeys of a worker; what it wrote into its logs is read when it closes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.clips import CLIPS
from supportvoice.demo import COLLEAGUE, LINE
from tests.journeys.house import House

CALLER = "+14155550100"
TOKEN = re.compile(rb'name="token" value="([^"]+)"')
AUDIO_URL = re.compile(r"/transport(?![/\w])")  # Vapi's; a stack that is dumped names files of kombu/transport/
SPOKEN = [clip.text for clip in CLIPS.values() if len(clip.text) > 12]


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    with lived_in(House(tmp_path_factory.mktemp("house"), django_db_blocker)) as house:
        yield house


@contextmanager
def lived_in(house: House) -> Iterator[House]:
    """Started, and stopped afterwards; then its logs are looked at."""
    house.start()
    try:
        yield house
    finally:
        house.stop()
    assert_logs_are_clean(house)


def assert_logs_are_clean(house: House) -> None:
    """No number, no spoken word, no prompt, no token and no capability URL may stand in any log line."""
    logs = house.logs()
    secrets = house.secrets
    forbidden = [
        CALLER,
        CALLER[1:],
        LINE,
        COLLEAGUE,
        secrets.vapi_key,
        secrets.webhook_secret,
        secrets.auth_token,
        secrets.password,
        *SPOKEN,
    ]
    forbidden += ["alex@example.com", "phone support agent", "five failed"]
    forbidden += [token.decode() for phone in house.phones for document in phone.documents for token in TOKEN.findall(document.body)]
    found = [text for text in forbidden if text in logs] + AUDIO_URL.findall(logs)
    assert not found, f"{len(found)} canaries stand in the logs: {found}"
    assert logs.strip(), "the logs are empty: nothing was looked at"
