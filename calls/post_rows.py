"""The rows of what comes in and goes out: each is there before anybody relies on it, and is dealt with once."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from calls.event_rows import Source


class InboxMessage(models.Model):
    """A webhook body, stored under a unique key before its 200 and processed after; it can be processed again."""

    source = models.CharField(max_length=8, choices=Source.choices)
    key = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=60)
    body = models.JSONField()
    vapi_call_id = models.CharField(max_length=64, blank=True, db_index=True)
    call = models.ForeignKey("calls.CallSession", null=True, blank=True, on_delete=models.CASCADE, related_name="inbox")
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]
        indexes: ClassVar = [models.Index(fields=["received_at"], condition=Q(processed_at=None), name="inbox_still_to_do")]

    def __str__(self) -> str:
        return f"{self.source} {self.kind} {self.pk}"


class OutboxCommand(models.Model):
    """Something that must be done once: by the live bridge (say, hang-up, hand-over) or by Twilio (dial).

    `id` orders the commands of a call; the channel layer only hints that there is one to look at.
    """

    call = models.ForeignKey("calls.CallSession", on_delete=models.CASCADE, related_name="commands")
    key = models.CharField(max_length=120, unique=True)
    to = models.CharField(max_length=8)  # live | twilio
    verb = models.CharField(max_length=20)
    detail = models.JSONField(default=dict)
    asked_at = models.DateTimeField()
    done_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]
        indexes: ClassVar = [models.Index(fields=["to", "asked_at"], condition=Q(done_at=None), name="commands_still_to_do")]

    def __str__(self) -> str:
        return f"{self.call} {self.verb}"
