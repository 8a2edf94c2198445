"""What this machine cannot run is left out and said aloud; with NOTHING_LEFT_OUT=1 (CI) that, or a skip, is a failure.

A test asks by its mark: `browser` wants a Chromium, `postgres` a server to make databases on (TEST_POSTGRES_URL), `small_disk` somebody
who may mount one, which root in a container may not: what nobody can install fails nowhere.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import Any

import pytest

from tests import small_disk

OF_THE_MACHINE = ("small_disk",)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser that tests drive: CHROMIUM, or the first one found on the PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)


def missing() -> dict[str, str]:
    """Mark -> why its tests cannot run here."""
    reasons = {}
    if chromium() is None:
        reasons["browser"] = "no Chromium: apt-get install chromium"
    if not os.environ.get("TEST_POSTGRES_URL"):
        reasons["postgres"] = "no PostgreSQL: set TEST_POSTGRES_URL"
    if not small_disk.can_be_had():
        reasons["small_disk"] = "no small disk: only root may mount one"
    return reasons


class LeftOut:
    """The plugin: deselects, counts, tells, and fails the run where nothing may be missing."""

    def __init__(self) -> None:
        self.reasons = missing()
        self.counts: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.strict = os.environ.get("NOTHING_LEFT_OUT") == "1"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            mark = next((mark for mark in self.reasons if item.get_closest_marker(mark)), None)
            (kept if mark is None else left).append(item)
            if mark is not None:
                self.counts[mark] += 1
        if left:
            items[:] = kept
            config.hook.pytest_deselected(items=left)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """With xdist the workers collect, each of them everything; whoever tells is the one that started them."""
        for mark, count in getattr(node, "workeroutput", {}).get("left_out", {}).items():
            self.counts[mark] = max(count, self.counts[mark])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = dict(self.counts)
        elif self.strict and (set(self.counts) - set(OF_THE_MACHINE) or self.skipped) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for mark, count in self.counts.items():
            fails = self.strict and mark not in OF_THE_MACHINE
            terminalreporter.write_line(f"LEFT OUT: {count} {mark} tests ({self.reasons[mark]})", yellow=not fails, red=fails)
        for nodeid in self.skipped:
            terminalreporter.write_line(f"SKIPPED: {nodeid}", yellow=not self.strict, red=self.strict)
