"""Whose turn it was last to do what is scheduled, and when."""

from __future__ import annotations

from django.db import models


class LastRun(models.Model):
    """When something scheduled was last begun, by anybody; a conditional UPDATE says who begins it next."""

    name = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()

    class Meta:
        default_permissions = ()  # nobody edits it, and no page asks

    def __str__(self) -> str:
        return self.name
