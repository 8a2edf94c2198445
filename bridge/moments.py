"""Moments are seconds of a monotonic clock, the same one for all that look at it."""

from __future__ import annotations

NEVER = float("inf")
