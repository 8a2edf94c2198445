"""One row for each life of a serving process: while it is well it raises its counter, and others see that.

A row is named by a random id, made anew at every start, so that nobody takes a process for one that was there before it.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class ProcessLease(models.Model):
    """`claimed_by`, once set, is the process that looks after the calls of this one: it raises its counter no more."""

    boot = models.UUIDField(primary_key=True)
    place = models.CharField(max_length=100, blank=True, default="")  # by which its machine knows whether it is gone
    counter = models.PositiveBigIntegerField(default=0)
    born_at = models.DateTimeField()
    dead_at = models.DateTimeField(null=True, blank=True)  # whoever started it saw it die: nobody need wait
    frozen_at = models.DateTimeField(null=True, blank=True)  # whoever started it hears nothing of it any more, though it is there
    claimed_by = models.UUIDField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ()  # nobody edits it, and no page asks
        ordering: ClassVar = ["born_at"]
        indexes: ClassVar = [models.Index(fields=["born_at"], condition=Q(claimed_by=None), name="leases_held")]

    def __str__(self) -> str:
        return f"lease {self.boot}"
