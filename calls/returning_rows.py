"""Up to when a vendor's list of calls has been compared with ours."""

from __future__ import annotations

from django.db import models


class Compared(models.Model):
    """One row a list. Calls begun before `until` are known here, or were nobody's."""

    listed = models.CharField(max_length=20, unique=True)
    until = models.DateTimeField()

    class Meta:
        default_permissions = ()  # nobody edits it, and no page asks

    def __str__(self) -> str:
        return f"{self.listed}, {self.until}"
