"""The three ways Vapi can show that it knows our secret, and the many ways a stranger cannot."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from django.http.request import HttpHeaders
from hypothesis import given
from hypothesis import strategies as st

from bridge.vapi_proof import WINDOW_S, VapiProof

NOW = 1_795_342_809.5
BODY = b'{"message": {"type": "hang"}}'
PROOF = VapiProof(secrets=["the old one", "the new one", ""])


def headers(**given: str) -> HttpHeaders:
    return HttpHeaders({f"HTTP_{name.upper()}": value for name, value in given.items()})


def signed(timestamp: str, body: bytes = BODY, secret: str = "the new one") -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secret", ["the old one", "the new one"])
def test_every_secret_in_use_is_a_proof_by_header_bearer_and_signature(secret: str) -> None:
    stamp = str(int(NOW))
    assert PROOF(headers=headers(x_vapi_secret=secret), body=BODY, now=NOW)
    assert PROOF(headers=headers(authorization=f"Bearer {secret}"), body=BODY, now=NOW)
    assert PROOF(headers=headers(x_timestamp=stamp, x_signature=signed(stamp, secret=secret)), body=BODY, now=NOW)
    assert PROOF(headers=headers(x_timestamp=stamp, x_signature="sha256=" + signed(stamp, secret=secret)), body=BODY, now=NOW)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("prefix", ["", "{}=", "v1=", "v1,"])
def test_a_signature_may_be_of_any_kind_a_credential_can_choose(algorithm: str, prefix: str) -> None:
    stamp = str(int(NOW))
    mac = hmac.new(b"the new one", f"{stamp}.".encode() + BODY, algorithm).digest()
    plain, urlsafe = base64.b64encode(mac).decode(), base64.urlsafe_b64encode(mac).decode()
    for written in (mac.hex(), mac.hex().upper(), plain, plain.rstrip("="), urlsafe):
        shown = headers(x_timestamp=stamp, x_signature=prefix.format(algorithm) + written)
        assert PROOF(headers=shown, body=BODY, now=NOW)
        assert not PROOF(headers=shown, body=BODY + b" ", now=NOW)
        assert not PROOF(headers=shown, body=BODY, now=NOW + WINDOW_S + 1)


def test_a_signature_without_a_time_could_be_sent_again_and_is_none() -> None:
    mac = hmac.new(b"the new one", BODY, hashlib.sha256).hexdigest()
    assert not PROOF(headers=headers(x_signature=mac), body=BODY, now=NOW)
    assert not PROOF(headers=headers(x_signature=mac, x_timestamp=str(int(NOW))), body=BODY, now=NOW)


@pytest.mark.parametrize("length", [0, 1, 27, 28, 40, 43, 44, 64, 86, 88, 128, 500])
def test_a_signature_made_up_of_any_length_is_none(length: int) -> None:
    for sign in ("0", "A", "=", "é"):
        assert not PROOF(headers=headers(x_timestamp=str(int(NOW)), x_signature=sign * length), body=BODY, now=NOW)


@pytest.mark.parametrize("shift", [-WINDOW_S, 0, WINDOW_S])
def test_a_timestamp_may_be_in_seconds_or_milliseconds(shift: int) -> None:
    for stamp in (str(int(NOW) + shift + (shift < 0)), str(int((NOW + shift) * 1000))):
        assert PROOF(headers=headers(x_timestamp=stamp, x_signature=signed(stamp)), body=BODY, now=NOW)


@pytest.mark.parametrize("stamp", [str(int(NOW) - 301), str(int(NOW) + 302), "0", "", "soon", "-1795342809", "１７９５３４２８０９"])
def test_a_signature_from_another_time_is_none(stamp: str) -> None:
    assert not PROOF(headers=headers(x_timestamp=stamp, x_signature=signed(stamp)), body=BODY, now=NOW)


def test_a_signature_over_another_body_is_none() -> None:
    stamp = str(int(NOW))
    assert not PROOF(headers=headers(x_timestamp=stamp, x_signature=signed(stamp, b"{}")), body=BODY, now=NOW)
    assert not PROOF(headers=headers(x_timestamp=stamp, x_signature=signed(stamp, secret="mine")), body=BODY, now=NOW)
    assert not PROOF(headers=headers(x_signature=signed("")), body=BODY, now=NOW)


def test_without_a_secret_nobody_passes() -> None:
    nobody = VapiProof(secrets=["", ""])
    stamp = str(int(NOW))
    assert not nobody(headers=headers(x_vapi_secret=""), body=BODY, now=NOW)
    assert not nobody(headers=headers(authorization="Bearer "), body=BODY, now=NOW)
    assert not nobody(headers=headers(x_timestamp=stamp, x_signature=signed(stamp, secret="")), body=BODY, now=NOW)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=20), st.text(max_size=70))
def test_whatever_else_is_shown_is_refused_without_an_exception(secret: str, bearer: str, stamp: str, signature: str) -> None:
    shown = headers(x_vapi_secret=secret, authorization=bearer, x_timestamp=stamp, x_signature=signature)
    assert not PROOF(headers=shown, body=BODY, now=NOW)
