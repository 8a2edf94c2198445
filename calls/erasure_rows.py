"""The rows of erasing: what vendors must still delete."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class VendorErasure(models.Model):
    """Something a vendor keeps of a call that it must delete; asked again until it says that it is gone."""

    class Kind(models.TextChoices):
        VAPI_CALL = "vapi-call", "Call at Vapi"
        TWILIO_RECORDING = "twilio-recording", "Recording at Twilio"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    vendor_id = models.CharField(max_length=64)
    account_sid = models.CharField(max_length=64, blank=True)  # Twilio's account of it; for a Vapi call "backup" if it was made there
    asked_for = models.CharField(max_length=16, blank=True)  # the mark of the person who asked (`calls.person.mark`)
    asked_at = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField()
    done_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["kind", "vendor_id"], name="one_erasure_per_thing")]
        indexes: ClassVar = [models.Index(fields=["next_at"], condition=Q(done_at=None), name="erasures_still_to_do")]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
