"""A thousand tries to log in, and how many of them were looked at. The owner gets in all the while."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from calls import brakes
from calls.brakes import Knocker, TooManyTries
from calls.console.log_in import in_words
from calls.models import LogInBrake
from tests.builders import at_once

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIL, HOME = "203.0.113.9", "198.51.100.7"
WRONG = "That name and password do not fit together"


class CountedHasher(MD5PasswordHasher):
    """Looks at passwords as the tests' usual one does, and counts how often."""

    looked = 0

    def encode(self, password: str, salt: str) -> str:
        CountedHasher.looked += 1
        return super().encode(password, salt)


@pytest.fixture
def olga(db: None, settings: Any) -> User:
    settings.PASSWORD_HASHERS = ["tests.calls.test_brakes.CountedHasher"]
    user = User.objects.create_user("olga", password="right")
    CountedHasher.looked = 0
    return user


Try = Callable[..., Any]


def knock(client: Client, name: str, password: str, address: str) -> Any:
    return client.post("/login/", {"username": name, "password": password}, REMOTE_ADDR=address)


def refused(name: str, address: str, times: int) -> None:
    """What the door asks for a stranger who tries, without its page, and is told to wait each time."""
    for _ in range(times):
        with pytest.raises(TooManyTries):
            brakes.pay(Knocker(name, address), at=timezone.now())


def comes_in(client: Client, address: str) -> bool:
    return bool(knock(client, "olga", "right", address).status_code == 302)


def browser_that_was_in() -> Client:
    """It logged in once and out again."""
    client = Client()
    assert comes_in(client, HOME)
    client.post("/logout/")
    return client


def test_a_thousand_tries_from_one_address_on_one_account(olga: User, client: Client) -> None:
    answers = [knock(client, "olga", f"guess-{n}", EVIL).status_code for n in range(50)]
    refused("olga", EVIL, 900)
    answers += [knock(client, "olga", f"guess-{n}", EVIL).status_code for n in range(950, 1000)]
    assert CountedHasher.looked == brakes.HERE.tries == 5
    assert answers == [200] * 5 + [429] * 95
    assert not comes_in(client, EVIL)
    assert comes_in(Client(), HOME), "the owner from another address"


def test_a_thousand_tries_over_a_day_from_one_address_on_one_account(olga: User) -> None:
    looked = 0
    for n in range(1000):
        try:
            brakes.pay(Knocker("olga", EVIL), at=NOON + n * timedelta(days=1) / 1000)
            looked += 1
        except TooManyTries:
            pass
    assert looked <= 10


def test_a_thousand_tries_from_one_address_on_a_thousand_accounts(olga: User, client: Client) -> None:
    for n in range(50):
        knock(client, f"user-{n}", "guess", EVIL)
    for n in range(50, 950):
        refused(f"user-{n}", EVIL, 1)
    for n in range(950, 1000):
        knock(client, f"user-{n}", "guess", EVIL)
    assert CountedHasher.looked == brakes.ADDRESS.tries == 30
    assert comes_in(Client(), HOME)


def test_a_thousand_tries_from_a_thousand_addresses_on_one_account(olga: User, client: Client) -> None:
    owner = browser_that_was_in()
    CountedHasher.looked = 0
    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
    for address in addresses[:50]:
        knock(client, "olga", "guess", address)
    for address in addresses[50:950]:
        refused("olga", address, 1)
    for address in addresses[950:]:
        knock(client, "olga", "guess", address)
    assert CountedHasher.looked == brakes.ACCOUNT.tries == 20
    assert comes_in(owner, "192.0.2.44"), "the owner, with a browser that has been in before, from wherever"
    assert not comes_in(Client(), "192.0.2.45"), "a browser nobody has seen has to wait"


def test_a_browser_that_was_in_has_five_tries_too(olga: User) -> None:
    owner = browser_that_was_in()
    CountedHasher.looked = 0
    for n in range(50):
        knock(owner, "olga", "guess", f"10.0.0.{n}")
    assert CountedHasher.looked == 5


def test_the_mark_of_a_browser_is_good_for_its_own_account_alone(olga: User) -> None:
    User.objects.create_user("paul", password="x")
    owner = browser_that_was_in()
    CountedHasher.looked = 0
    for n in range(50):
        knock(owner, "paul", "guess", f"10.0.0.{n}")
    assert CountedHasher.looked == brakes.ACCOUNT.tries


@pytest.mark.parametrize("mark", ["", "x", "eyJ4Ijo=:1:forged"])
def test_a_forged_mark_is_none(olga: User, client: Client, mark: str) -> None:
    client.cookies["known_browser"] = mark
    for n in range(30):
        knock(client, "olga", "guess", f"10.0.0.{n}")
    assert CountedHasher.looked == brakes.ACCOUNT.tries


def test_another_way_to_write_the_name_is_no_other_account(olga: User, client: Client) -> None:
    for n in range(200):
        name = "".join(letter.upper() if n >> place & 1 else letter for place, letter in enumerate("olga"))
        knock(client, name, "guess", EVIL)
    assert CountedHasher.looked == 5


def test_nothing_tells_a_name_that_exists_from_one_that_does_not(olga: User, client: Client) -> None:
    """Nor the time it takes: a password is looked at once for either."""
    User.objects.create_user("gone", password="right", is_active=False)
    pages = {}
    for name in ("olga", "nobody", "gone"):
        CountedHasher.looked = 0
        answers = [knock(Client(), name, "wrong", address) for address in [f"10.0.0.{len(name)}"] * 6]
        pages[name] = [(answer.status_code, answer.content.decode().replace(name, "NAME").split("csrf")[0]) for answer in answers]
        assert CountedHasher.looked == 5
        assert WRONG in answers[0].content.decode()
        assert "Too many tries. Try again in 5 minutes." in answers[5].content.decode()
    assert pages["olga"] == pages["nobody"] == pages["gone"]


def test_who_gets_in_begins_anew(olga: User, client: Client) -> None:
    for _ in range(3):
        for _ in range(4):
            knock(client, "olga", "mistyped", HOME)
        assert comes_in(client, HOME)
        client.post("/logout/")


def test_getting_in_oneself_lets_nobody_guess_more(olga: User) -> None:
    """Somebody with an account of their own uses it between the guesses, to be forgiven."""
    User.objects.create_user("mallory", password="own")
    CountedHasher.looked = 0
    for n in range(200):
        assert knock(Client(), "mallory", "own", EVIL).status_code in (302, 429)
        knock(Client(), f"user-{n}", "guess", EVIL)
    assert LogInBrake.objects.filter(tries__gte=30, blocked_until__isnull=False).exists()
    assert CountedHasher.looked <= 2 * brakes.ADDRESS.tries


def test_pauses_grow_up_to_a_day_and_are_forgotten_after_one(olga: User) -> None:
    who, at, pauses = Knocker("olga", EVIL), NOON, []
    for _ in range(4):
        brakes.pay(who, at=at)
    for _ in range(8):
        brakes.pay(who, at=at)
        with pytest.raises(TooManyTries) as refused:
            brakes.pay(who, at=at)
        pauses.append(refused.value.pause)
        at += refused.value.pause
    assert [pause / timedelta(minutes=1) for pause in pauses] == [5, 15, 45, 135, 405, 1215, 1440, 1440]
    at += timedelta(days=1, seconds=1)
    for _ in range(5):
        brakes.pay(who, at=at)
    assert LogInBrake.objects.count() == 3, "what is forgotten is gone"


def test_four_tries_a_day_are_nothing(olga: User) -> None:
    for n in range(12):
        brakes.pay(Knocker("olga", HOME), at=NOON + (n // 4) * timedelta(hours=25))


def test_one_ipv6_connection_is_one_stranger(olga: User) -> None:
    for n in range(5):
        brakes.pay(Knocker("olga", f"2001:db8:1:2::{n:x}"), at=NOON)
    with pytest.raises(TooManyTries):
        brakes.pay(Knocker("olga", "2001:db8:1:2:ffff::1"), at=NOON)
    brakes.pay(Knocker("olga", "2001:db8:1:3::1"), at=NOON)


def test_no_row_says_who_tried_or_where(olga: User, client: Client) -> None:
    knock(client, "olga", "my-password-in-the-wrong-field", EVIL)
    stored = repr(list(LogInBrake.objects.values()))
    assert "olga" not in stored
    assert EVIL not in stored


@pytest.mark.django_db(transaction=True)
def test_tries_at_once_pay_as_tries_in_a_row() -> None:
    def one() -> bool:
        try:
            brakes.pay(Knocker("olga", EVIL), at=NOON)
        except TooManyTries:
            return False
        return True

    assert sum(at_once([one] * 24)) == brakes.HERE.tries


@pytest.mark.parametrize(("pause", "words"), [(1, "a minute"), (60, "a minute"), (61, "2 minutes"), (300, "5 minutes"), (7200, "2 hours")])
def test_a_pause_in_words_is_never_too_short(pause: int, words: str) -> None:
    assert in_words(timedelta(seconds=pause)) == words
