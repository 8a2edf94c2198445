"""The roof: settings, servers and commands; it plugs bridge, agents and calls together."""

from supportvoice.celery import app as celery_app

__all__ = ["celery_app"]
