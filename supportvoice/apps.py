"""The roof as Django knows it: its commands and its checks, and the admin on a site of ours."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps

from supportvoice import checks

__all__ = ["DeskConfig", "SupportvoiceConfig", "checks"]


class SupportvoiceConfig(AppConfig):
    name = "supportvoice"
    default = True


class DeskConfig(admin_apps.AdminConfig):
    default = False
    default_site = "supportvoice.desk.DeskSite"
