"""The room of what happened, as Django knows it."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class CallsConfig(AppConfig):
    name = "calls"
    verbose_name = "Calls"

    def ready(self) -> None:
        import_module("calls.checks")  # it knows the models, which are loaded by now
