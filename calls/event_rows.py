"""The rows of a call's story: each milestone, and who told of it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Source(models.TextChoices):
    TWILIO = "twilio", "Twilio"
    BRIDGE = "bridge", "Bridge"
    VAPI = "vapi", "Vapi"
    TOOL = "tool", "Tool"
    HUMAN = "human", "Person"
    SYSTEM = "system", "System"


class CallEvent(models.Model):
    """One milestone, append only. `ms` is monotonic time since we answered; `at` is the wall clock's word for it."""

    call = models.ForeignKey("calls.CallSession", on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField()
    source = models.CharField(max_length=8, choices=Source.choices)
    kind = models.CharField(max_length=40)
    at = models.DateTimeField()
    ms = models.IntegerField()
    detail = models.JSONField(default=dict)

    class Meta:
        ordering: ClassVar = ["seq"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["call", "seq"], name="one_event_per_number")]

    def __str__(self) -> str:
        return f"{self.call} {self.seq} {self.kind}"
