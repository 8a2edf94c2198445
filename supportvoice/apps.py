"""The roof as Django knows it: its commands and its checks."""

from __future__ import annotations

from django.apps import AppConfig

from supportvoice import checks

__all__ = ["SupportvoiceConfig", "checks"]


class SupportvoiceConfig(AppConfig):
    name = "supportvoice"
