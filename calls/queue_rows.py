"""The rows of admission: places with the AI, callers who wait for one, and what an account at Vapi carries by its own word."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class AgentPlace(models.Model):
    """A place with the AI, and the call that had it last: free once that call is not with the AI any more.

    Nobody frees a place. Whoever takes it says how often it was `given` before, so of two who want the same one, one gets it.
    """

    number = models.PositiveIntegerField(unique=True)
    given = models.PositiveBigIntegerField(default=0)
    call = models.OneToOneField("calls.CallSession", null=True, on_delete=models.SET_NULL, related_name="agent_place")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"place {self.number}"


class Waiting(models.Model):
    """A caller in the queue, or one who was there. `said_turn` is the turn of the wait door in which `place` was spoken last."""

    call = models.OneToOneField("calls.CallSession", on_delete=models.CASCADE, related_name="waiting")
    joined_at = models.DateTimeField()
    place = models.PositiveIntegerField()
    said_turn = models.IntegerField(default=-1)
    said_at = models.DateTimeField(null=True, blank=True)
    left_at = models.DateTimeField(null=True, blank=True)
    left_why = models.CharField(max_length=20, blank=True)

    class Meta:
        ordering: ClassVar = ["joined_at", "pk"]
        default_permissions = ()
        indexes: ClassVar = [models.Index(fields=["joined_at"], condition=Q(left_at=None), name="callers_in_the_queue")]

    def __str__(self) -> str:
        return f"{self.call} waits"


class LineLimit(models.Model):
    """How many calls an account at Vapi carried when it refused another one."""

    account = models.CharField(max_length=10, unique=True)
    most = models.PositiveIntegerField()
    told_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.account}: {self.most}"
