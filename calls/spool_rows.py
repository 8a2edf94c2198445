"""How far a spool file has been read, written in the same transaction as what was read: so no line of it is told twice."""

from __future__ import annotations

from django.db import models


class SpoolMark(models.Model):
    """One row per file, for as long as the file is there. It holds no words."""

    name = models.CharField(max_length=80, unique=True)
    number = models.PositiveBigIntegerField()  # of the last line that is stored

    class Meta:
        default_permissions = ()  # nobody edits it, and no page asks

    def __str__(self) -> str:
        return self.name
