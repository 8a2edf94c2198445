"""Whose stream is it? The token answers without a database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadMessage
from bridge.stream_token import check, issue, key_from

KEY = key_from("a secret of the application")
SID = "CA" + "a" * 32


def test_a_token_opens_its_own_call_until_it_expires() -> None:
    token = issue(key=KEY, call_sid=SID, epoch=3, expires=1000)
    assert check(key=KEY, token=token, call_sid=SID, now=1000) == 3
    with pytest.raises(BadMessage):
        check(key=KEY, token=token, call_sid=SID, now=1000.001)


def test_the_same_call_gets_the_same_token_again() -> None:
    assert issue(key=KEY, call_sid=SID, epoch=0, expires=7) == issue(key=KEY, call_sid=SID, epoch=0, expires=7)


def test_another_call_another_key_or_another_epoch_is_refused() -> None:
    token = issue(key=KEY, call_sid=SID, epoch=0, expires=1000)
    _, expires, mac = token.split(".")
    for forged in (f"1.{expires}.{mac}", f"0.2000.{mac}", f"0.{expires}.{mac[:-1]}A", f"00.{expires}.{mac}", f"{token}\n", ""):
        with pytest.raises(BadMessage):
            check(key=KEY, token=forged, call_sid=SID, now=1)
    with pytest.raises(BadMessage):
        check(key=KEY, token=token, call_sid="CA" + "b" * 32, now=1)
    with pytest.raises(BadMessage):
        check(key=key_from("another secret"), token=token, call_sid=SID, now=1)


def test_the_token_fits_a_stream_parameter() -> None:
    assert len("token" + issue(key=KEY, call_sid=SID, epoch=999_999_999, expires=10**12 - 1)) < 500


@given(st.text(max_size=80))
def test_garbage_is_refused_in_one_sentence(token: str) -> None:
    with pytest.raises(BadMessage):
        check(key=KEY, token=token, call_sid=SID, now=0)
