"""What every test stands on: a database in a file, as in the shop; nobody outside to wake; no illegal change of state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from hypothesis import settings as hypothesis_settings

from agents import lines
from calls import discretion, publisher, services, storing
from supportvoice.static import StaticFilesMiddleware
from tests.builders import QuietPublisher
from tests.canaries import Canaries
from tests.left_out import LeftOut
from tests.newborn import instead_of_flush

# A busy machine is no bug: how long one example takes says nothing. `derandomize` keeps a red run red.
hypothesis_settings.register_profile("house", deadline=None, derandomize=True)
hypothesis_settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(), "left-out")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # slow on purpose elsewhere, here 200 times


@pytest.fixture(scope="session", autouse=True)
def _logs_say_nothing_private() -> Iterator[None]:
    """No test of this suite may make any line of ours log what somebody said, or a secret."""
    canaries, root = Canaries(), logging.getLogger()
    level = root.level
    root.addHandler(canaries)
    root.setLevel(logging.INFO)
    logging.getLogger("canary").warning("+14155550100 planted this, to see that it is found")
    assert canaries.found, "a planted number was not found: nothing would be"
    canaries.found.clear()
    yield
    root.removeHandler(canaries)
    root.setLevel(level)
    assert canaries.found == [], f"Something private was logged by {sorted(set(canaries.found))}"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in memory has one writer and other locks than the file callers depend on; a directory per worker keeps them apart."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        database.setdefault("TEST", {})["NAME"] = str(tmp_path_factory.mktemp("db") / "test.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The migrated database, which every test finds as if it were the first; a server's is flushed as Django does it."""
    if connection.vendor != "sqlite":
        yield
        return
    with instead_of_flush(Path(connection.settings_dict["NAME"])):
        yield


@pytest.fixture(scope="session", autouse=True)
def _static_files_are_listed_once(django_test_environment: None) -> Iterator[None]:
    """Each client of a test makes middleware of its own, and ours reads about every static file: a fifth of a webhook's test."""
    listed = dict(StaticFilesMiddleware(lambda request: HttpResponse()).files)
    assert listed, "no static file was found: clients would find none either"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StaticFilesMiddleware, "add_files_from_finders", lambda middleware: middleware.files.update(listed))
        yield


@pytest.fixture(autouse=True)
def published() -> Iterator[QuietPublisher]:
    """Everything that would have been sent to the broker or the channel layer."""
    quiet = QuietPublisher()
    before = publisher.install(quiet)
    yield quiet
    publisher.install(before)


@pytest.fixture(autouse=True)
def _a_spool_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test keeps while the database is away is stored, or gone, with the test."""
    monkeypatch.setattr(settings, "SPOOL_DIR", tmp_path / "spool")
    storing.the_keeper.cache_clear()
    yield
    storing.the_keeper().stop()
    storing.the_keeper.cache_clear()


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> None:
    """A process remembers every line, and what each version leaves out, and the next test's have the same keys."""
    lines.forget()
    discretion.forget()


@pytest.fixture(autouse=True)
def _no_illegal_edges() -> Iterator[None]:
    services.illegal_edges.clear()
    yield
    asked, services.illegal_edges = dict(services.illegal_edges), type(services.illegal_edges)()
    assert asked == {}, f"Somebody asked for illegal changes of state: {asked}"
