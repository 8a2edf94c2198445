"""Coming in, staying in, and the code of an authenticator app."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyotp
import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from agents.visitor import client_address
from calls import second_factor
from calls.console import log_in, session
from calls.models import SecondFactor
from tests.builders import a_person, at_once

pytestmark = pytest.mark.django_db
NAME, PASSWORD = "olga", "a-password-1"
HOUR = timedelta(hours=1)


class Clock:
    """What the wall clock says, moved by hand."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self, *_: object) -> datetime:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(timezone.now())
    monkeypatch.setattr("django.utils.timezone.now", clock)
    return clock


@pytest.fixture
def olga() -> User:
    return a_person("ops", NAME, password=PASSWORD)


@pytest.fixture
def app(olga: User, clock: Clock) -> pyotp.TOTP:
    """Olga's authenticator app; her log-in asks for its codes."""
    factor = second_factor.prepare(user=olga)
    app = pyotp.TOTP(second_factor.secret_of(factor) or "")
    assert second_factor.confirm(factor, app.at(clock.at), at=clock.at)
    clock.at += timedelta(seconds=30)
    return app


def come(client: Client, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/login/", {"username": NAME, "password": password, **more})


def show(client: Client, code: str, **more: str) -> Any:
    return client.post("/login/code/", {"code": code, **more})


def is_in(client: Client) -> bool:
    return client.get("/").status_code == 200


# -- the session -------------------------------------------------------------------------------------------------------


def test_the_session_of_a_log_in_is_another_than_before(olga: User, client: Client) -> None:
    client.cookies["sessionid"] = planted = "a" * 32
    come(client)
    first = client.cookies["sessionid"].value
    assert first != planted
    client.post("/logout/")
    assert not is_in(client)
    come(client)
    assert client.cookies["sessionid"].value not in (first, planted)


def test_cookies_are_for_the_browser_alone(olga: User, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    client = Client()
    client.get("/login/", secure=True)
    client.post("/login/", {"username": NAME, "password": PASSWORD}, secure=True)
    for name in ("sessionid", "known_browser", "csrftoken"):
        cookie = client.cookies[name]
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")


def test_the_database_holds_no_key_that_opens_a_session(olga: User, client: Client) -> None:
    come(client)
    assert is_in(client)
    row = Session.objects.get()
    assert client.cookies["sessionid"].value not in repr(vars(row))
    client.cookies["sessionid"] = row.session_key
    assert not is_in(client)
    client.cookies["sessionid"] = row.session_key[:32]
    assert not is_in(client)


def test_eight_hours_without_a_page_end_a_log_in(olga: User, client: Client, clock: Clock) -> None:
    come(client)
    clock.at += 7 * HOUR
    assert is_in(client)
    clock.at += 7 * HOUR
    assert is_in(client), "it was in use"
    clock.at += 8 * HOUR + timedelta(seconds=1)
    assert not is_in(client)


def test_a_day_ends_a_log_in_however_busy_it_is(olga: User, client: Client, clock: Clock) -> None:
    come(client)
    for _ in range(24):
        assert is_in(client)
        clock.at += HOUR
    clock.at += timedelta(seconds=1)
    assert not is_in(client)
    come(client)
    assert is_in(client), "another log-in, another day"


def test_pages_asked_for_in_one_minute_are_one_note(olga: User, client: Client, clock: Clock) -> None:
    come(client)
    clock.at += HOUR
    noted = [client.get("/").cookies.get("sessionid") is not None for _ in range(3)]
    assert noted == [True, False, False]


def test_another_password_ends_every_session(olga: User, client: Client) -> None:
    come(client)
    olga.set_password("another-1")
    olga.save()
    assert not is_in(client)


def test_who_a_session_belongs_to_is_read_anew(olga: User, client: Client, clock: Clock) -> None:
    come(client)
    key = client.cookies["sessionid"].value
    assert session.user_of(key) == olga
    clock.at += 9 * HOUR
    assert session.user_of(key) is None
    clock.at -= 9 * HOUR
    User.objects.update(is_active=False)
    assert session.user_of(key) is None
    User.objects.update(is_active=True)
    olga.set_password("another-1")
    olga.save()
    assert session.user_of(key) is None
    assert session.user_of(None) is session.user_of("x" * 32) is None


# -- one door ----------------------------------------------------------------------------------------------------------


def test_the_admin_has_no_log_in_of_its_own(olga: User, client: Client) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    answers = [client.get("/admin/login/"), client.post("/admin/login/", {"username": NAME, "password": PASSWORD})]
    assert [answer.headers["Location"] for answer in answers] == ["/login/?next=/admin/"] * 2
    assert client.get("/admin/agents/tool/", follow=True).redirect_chain[-1] == ("/login/?next=/admin/agents/tool/", 302)
    assert come(client, next="/admin/agents/tool/").headers["Location"] == "/admin/agents/tool/"
    assert client.get("/admin/agents/tool/").status_code == 200


def test_who_is_in_but_not_of_the_staff_is_told_so_and_not_led_in_circles(olga: User, client: Client) -> None:
    client.force_login(olga)
    assert client.get("/admin/", follow=True).status_code == 403


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/login/", "/login/code/", ""])
def test_a_log_in_leads_nowhere_else(olga: User, client: Client, elsewhere: str) -> None:
    assert come(client, next=elsewhere).headers["Location"] == "/"
    assert client.get("/login/", {"next": elsewhere}).headers["Location"] == "/"


# -- the code ----------------------------------------------------------------------------------------------------------


def test_a_log_in_with_an_app_asks_for_its_code(app: pyotp.TOTP, clock: Clock, client: Client) -> None:
    answer = come(client, next="/calls/")
    assert answer.headers["Location"] == "/login/code/?next=%2Fcalls%2F"
    half_way = client.cookies["sessionid"].value
    assert not is_in(client)
    assert "Six digits" in client.get(answer.headers["Location"]).content.decode()
    code = app.at(clock.at)
    answer = show(client, f"{code[:3]} {code[3:]}", next="/calls/")
    assert answer.headers["Location"] == "/calls/"
    assert is_in(client)
    assert client.cookies["sessionid"].value != half_way


def test_a_code_works_once(app: pyotp.TOTP, clock: Clock, client: Client) -> None:
    code = app.at(clock.at)
    come(client)
    show(client, code)
    assert is_in(client)
    other = Client()
    come(other)
    assert log_in.WRONG_CODE in show(other, code).content.decode()
    assert not is_in(other)
    clock.at += timedelta(seconds=30)
    show(other, app.at(clock.at))
    assert is_in(other)


def test_no_code_older_than_one_that_was_taken_is_taken(app: pyotp.TOTP, clock: Clock, olga: User) -> None:
    factor = SecondFactor.objects.get()
    early, now = app.at(clock.at - timedelta(seconds=30)), app.at(clock.at + timedelta(seconds=30))
    assert second_factor.take(factor, now, at=clock.at), "a phone's clock may be half a minute ahead"
    assert not second_factor.take(factor, app.at(clock.at), at=clock.at)
    assert not second_factor.take(factor, early, at=clock.at)


@pytest.mark.django_db(transaction=True)
def test_a_code_shown_twice_at_once_is_taken_once(olga: User) -> None:
    factor, at = second_factor.prepare(user=olga), timezone.now()
    code = pyotp.TOTP(second_factor.secret_of(factor) or "").at(at)
    assert sum(at_once([lambda: second_factor.take(factor, code, at=at)] * 8)) == 1


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "１２３４５６", "+12345", "\0" * 6])
def test_what_is_no_code_is_refused(app: pyotp.TOTP, client: Client, code: str) -> None:
    come(client)
    assert show(client, code).status_code == 200
    assert not is_in(client)


@pytest.fixture
def failed() -> Iterator[list[str]]:
    """Names of log-ins that Django was told of as failed."""
    names: list[str] = []

    def hear(credentials: dict[str, Any], **_: Any) -> None:
        names.append(credentials["username"])

    user_login_failed.connect(hear)
    yield names
    user_login_failed.disconnect(hear)


def test_wrong_codes_count_as_wrong_passwords_do(app: pyotp.TOTP, clock: Clock, client: Client, failed: list[str]) -> None:
    come(client)
    wrong = next(code for code in ("000000", "111111") if code not in [app.at(clock.at + timedelta(seconds=30 * n)) for n in (-1, 0, 1)])
    answers = [show(client, wrong).status_code for _ in range(1000)]
    assert answers == [200] * 4 + [429] * 996
    assert failed == [NAME] * 4
    assert show(client, app.at(clock.at)).status_code == 429
    assert come(Client()).status_code == 429, "and no password from here either"
    assert client.post("/login/", {"username": NAME, "password": PASSWORD}, REMOTE_ADDR="198.51.100.7").status_code == 302


def test_a_right_password_is_not_forgiven_before_the_code(app: pyotp.TOTP, client: Client) -> None:
    for _ in range(5):
        assert come(Client()).status_code == 302
    assert come(Client()).status_code == 429


def test_a_password_that_was_right_does_not_last(app: pyotp.TOTP, clock: Clock, client: Client) -> None:
    come(client)
    clock.at += timedelta(minutes=6)
    assert show(client, app.at(clock.at)).headers["Location"] == "/login/"
    come(client)
    User.objects.update(is_active=False)
    assert show(client, app.at(clock.at)).headers["Location"] == "/login/"
    assert Client().get("/login/code/").headers["Location"] == "/login/"


def test_an_app_is_set_up_confirmed_and_taken_away(olga: User, clock: Clock, client: Client) -> None:
    client.force_login(olga)
    door = "/second-factor/"
    client.post(door)
    page = client.get(door).content.decode()
    app = pyotp.TOTP(re.search(r'class="key">([A-Z2-7 ]+)<', page)[1].replace(" ", ""))  # type: ignore[index]
    assert 'src="data:image/svg+xml' in page
    assert come(Client()).headers["Location"] == "/", "nothing is asked for before it is confirmed"
    assert log_in.WRONG_CODE in client.post(door, {"do": "confirm", "code": "000000"}).content.decode()
    client.post(door, {"do": "confirm", "code": app.at(clock.at)})
    page = client.get(door).content.decode()
    assert app.secret not in page.replace(" ", "")
    assert "data:image" not in page
    assert come(Client()).headers["Location"].startswith("/login/code/")
    client.post(door, {"do": "remove", "code": app.at(clock.at)})
    assert SecondFactor.objects.exists(), "that code was used"
    clock.at += timedelta(seconds=30)
    client.post(door, {"do": "remove", "code": app.at(clock.at)})
    assert come(Client()).headers["Location"] == "/"


def test_guessing_the_code_that_takes_it_away_is_braked(app: pyotp.TOTP, olga: User, client: Client) -> None:
    client.force_login(olga)
    answers = [client.post("/second-factor/", {"do": "remove", "code": "000000"}).status_code for _ in range(20)]
    assert answers[5:] == [429] * 15


def test_an_admin_resets_it_and_nobody_reads_it(app: pyotp.TOTP, client: Client) -> None:
    client.force_login(User.objects.create_superuser("ann", password="x"))
    factor = SecondFactor.objects.get()
    pages = [client.get(f"/admin/calls/secondfactor/{page}").content.decode() for page in ("", f"{factor.pk}/change/")]
    assert all(NAME in page and app.secret not in page and factor.secret not in page for page in pages)
    client.post(f"/admin/calls/secondfactor/{factor.pk}/delete/", {"post": "yes"})
    assert come(Client()).headers["Location"] == "/"


def test_the_secret_is_in_the_database_for_nobody_to_read(app: pyotp.TOTP) -> None:
    assert app.secret not in repr(SecondFactor.objects.values())


def test_an_app_outlives_the_rotation_of_the_key(app: pyotp.TOTP, clock: Clock, settings: Any) -> None:
    old, factor = settings.SECRET_KEY, SecondFactor.objects.get()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "n" * 50, [old]
    assert second_factor.take(factor, app.at(clock.at), at=clock.at)
    settings.SECRET_KEY_FALLBACKS = []
    assert second_factor.secret_of(factor) is None
    factor.refresh_from_db()
    assert second_factor.secret_of(factor) == app.secret, "its first code under the new key moved it there"


def test_a_secret_that_cannot_be_read_lets_nobody_in(app: pyotp.TOTP, clock: Clock, client: Client) -> None:
    SecondFactor.objects.update(secret="x")
    come(client)
    show(client, app.at(clock.at))
    assert not is_in(client)


# -- where from --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", "", [], "203.0.113.9"),
        ("203.0.113.9", "1.2.3.4", [], "203.0.113.9"),
        ("203.0.113.9", "1.2.3.4", ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.7", "203.0.113.9", ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.7", "1.2.3.4, 203.0.113.9", ["10.0.0.7"], "203.0.113.9"),
        ("10.0.0.7", "1.2.3.4, 203.0.113.9, 10.0.0.8", ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.7", "1.2.3.4, nonsense", ["10.0.0.0/8"], "10.0.0.7"),
        ("10.0.0.7", "", ["10.0.0.0/8"], "10.0.0.7"),
        ("10.0.0.7", "2001:db8::1", ["10.0.0.0/8"], "2001:db8::1"),
        ("", "1.2.3.4", ["10.0.0.0/8"], ""),
    ],
)
def test_only_a_proxy_of_ours_is_believed(peer: str, forwarded: str, trusted: list[str], address: str) -> None:
    assert client_address(peer=peer, forwarded=forwarded, trusted=trusted) == address


def test_a_header_of_a_strangers_gets_nobody_more_tries(olga: User, client: Client) -> None:
    statuses = [
        client.post("/login/", {"username": NAME, "password": "x"}, headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code
        for n in range(7)
    ]
    assert statuses == [200] * 5 + [429] * 2
