"""The roof as Django knows it: its commands and its checks, and the admin on a site of ours."""

from __future__ import annotations

import threading

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.utils.module_loading import autodiscover_modules

from bridge import waiting
from supportvoice import checks, lent, logs

__all__ = ["DeskConfig", "SupportvoiceConfig", "checks"]


class SupportvoiceConfig(AppConfig):
    name = "supportvoice"
    default = True

    def ready(self) -> None:
        waiting.give_back = lent.give_back
        threading.excepthook = logs.thread_broke
        autodiscover_modules("log_ins")  # it knows the models, which are loaded by now


class DeskConfig(admin_apps.AdminConfig):
    default = False
    default_site = "supportvoice.desk.DeskSite"
