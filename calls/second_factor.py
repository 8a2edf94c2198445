"""The authenticator app of a user: a secret both sides know makes a new code every 30 s (RFC 6238).

The row holds the secret encrypted with a key made from SECRET_KEY, so a copy of the database opens no door. While that key
is rotated, the former ones still decrypt, and a code that was right leaves its secret encrypted with the newest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

import pyotp
import segno
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.contrib.auth.models import User

from calls.models import SecondFactor

ISSUER = "supportvoice"
STEP_S = 30
EARLY_OR_LATE = 1  # steps by which the clock of a phone may be wrong


def prepare(*, user: User) -> SecondFactor:
    """A factor with a secret of its own, not asked for before it is confirmed; one that is in use stays as it is."""
    fresh = {"secret": _box().encrypt(pyotp.random_base32().encode()).decode()}
    factor, _ = SecondFactor.objects.get_or_create(user=user, defaults=fresh)
    return factor


def of(user: User) -> SecondFactor | None:
    """The factor that a log-in of this user has to show; None when it has not set one up."""
    return SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).first()


def take(factor: SecondFactor, code: str, *, at: datetime) -> bool:
    """True for a code of this moment that nobody has used before, and for one taker alone."""
    secret, digits = secret_of(factor), "".join(code.split())
    if secret is None or not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
        return False
    now, app = int(at.timestamp()) // STEP_S, pyotp.TOTP(secret)
    for step in range(now - EARLY_OR_LATE, now + EARLY_OR_LATE + 1):
        if hmac.compare_digest(app.generate_otp(step), digits):
            newest = {"last_step": step, "secret": _box().encrypt(secret.encode()).decode()}
            return SecondFactor.objects.filter(pk=factor.pk, last_step__lt=step).update(**newest) == 1
    return False


def confirm(factor: SecondFactor, code: str, *, at: datetime) -> bool:
    """Put a prepared factor to use, with a code that shows that the app has the secret."""
    return take(factor, code, at=at) and SecondFactor.objects.filter(pk=factor.pk, confirmed_at=None).update(confirmed_at=at) == 1


def remove(factor: SecondFactor, code: str, *, at: datetime) -> bool:
    """The user's own way back to a password alone; somebody who has lost the app asks an admin, who deletes the row."""
    return take(factor, code, at=at) and bool(SecondFactor.objects.filter(pk=factor.pk).delete()[0])


def secret_of(factor: SecondFactor) -> str | None:
    """For the page that sets it up. None when it was encrypted with a key that is gone: an admin has to reset it."""
    try:
        return _box().decrypt(factor.secret.encode()).decode()
    except InvalidToken:
        return None


def picture(*, secret: str, name: str) -> str:
    """What the app's camera reads, as the address of an image: it holds the secret, and is kept nowhere."""
    address = pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)
    return segno.make(address, error="m").svg_data_uri(scale=5, border=3, light="white")


def _box() -> MultiFernet:
    return MultiFernet([Fernet(_key_from(secret)) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def _key_from(secret: str) -> bytes:
    """The key for this purpose alone, made from the application's secret."""
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), b"supportvoice: second factors", hashlib.sha256))
