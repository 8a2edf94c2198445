"""Bugs planted in a house under test, before any of its code runs: Python reads this file first, because it is on the house's PYTHONPATH.

PLANTED names the bug. The product has no switch for any of them. What a laboratory's house has there is there, too.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

Spoil = Callable[[ModuleType], None]


def no_resume_door(ladder: ModuleType) -> None:
    """M1: whoever asks what is next is told to hang up."""
    ladder.decide = lambda facts: ladder.HangUp()  # type: ignore[attr-defined]


def no_rescuer(rescue: ModuleType) -> None:
    """M2: nobody takes over the calls of a process that is gone."""
    rescue.claim = lambda sign, **how: None  # type: ignore[attr-defined]


def no_claim(ledger: ModuleType) -> None:
    """M6: a stream whose session nobody starts does not start it either."""

    async def claim(self: Any, ref: Any, n: int, **how: Any) -> bool:
        return True

    ledger.DatabaseLedger.claim = claim


def no_epoch(services: ModuleType) -> None:
    """M3: the next stream of a call is of the same epoch as the one before."""
    services.next_epoch = lambda *, call_sid, epoch: True  # type: ignore[attr-defined]


def no_memory(payload: ModuleType) -> None:
    """The next agent of a call is told nothing of the one before, and begins as every agent does."""
    payload.resumed = lambda body, taken_up: dict(body)  # type: ignore[attr-defined]


def no_backup(accounts: ModuleType) -> None:
    """M10: the second account at Vapi is never asked."""
    accounts._backup_works = lambda at: False  # type: ignore[attr-defined]


def no_limit(memory: ModuleType) -> None:
    """M11: nobody is told to leave for want of memory."""
    memory.Turns.who_leaves = lambda self, everybody, now: None


PLANTS: dict[str, tuple[str, Spoil]] = {
    "no-resume-door": ("calls.ladder", no_resume_door),
    "no-rescuer": ("calls.rescue", no_rescuer),
    "no-claim": ("calls.ledger", no_claim),
    "no-memory": ("agents.payload", no_memory),
    "no-epoch": ("calls.services", no_epoch),
    "no-backup": ("calls.accounts", no_backup),
    "no-limit": ("supportvoice.memory", no_limit),
}


class Planter(importlib.abc.MetaPathFinder):
    """Finds one module as everybody else does, and spoils it once it is there."""

    def __init__(self, module: str, spoil: Spoil) -> None:
        self.module = module
        self.spoil = spoil

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute, spoil = spec.loader.exec_module, self.spoil

        def exec_module(module: ModuleType) -> None:
            execute(module)
            spoil(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def run(file: Path) -> None:
    spec = importlib.util.spec_from_file_location("inside", file)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


run(Path(__file__).parents[3] / "supportvoice" / "laboratory" / "inside" / "sitecustomize.py")
if os.environ.get("PLANTED"):
    sys.meta_path.insert(0, Planter(*PLANTS[os.environ["PLANTED"]]))
