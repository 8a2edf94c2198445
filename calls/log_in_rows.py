"""The rows of logging in: how often it was tried, and the second proof."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class LogInBrake(models.Model):
    """How often somebody has tried to log in: one row for an account, an address, or both; `key` says which to nobody who reads it."""

    key = models.CharField(max_length=64, unique=True)
    tries = models.PositiveIntegerField(default=0)
    since = models.DateTimeField()
    blocked_until = models.DateTimeField(null=True, blank=True)
    forgotten_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.tries} tries"


class SecondFactor(models.Model):
    """The authenticator app of a user. The secret is encrypted (`calls.second_factor`), and shown once: while it is set up."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor")
    secret = models.CharField(max_length=200, editable=False)
    last_step = models.PositiveBigIntegerField(default=0, editable=False)  # of the newest code that was taken: none is taken twice
    confirmed_at = models.DateTimeField("in use since", null=True, blank=True)

    class Meta:
        verbose_name = "authenticator app"
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"authenticator app of {self.user}"
