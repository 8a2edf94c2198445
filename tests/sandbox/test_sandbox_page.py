"""The page about the sandbox and its code say the same."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bridge.sandbox import cli
from bridge.sandbox.faults import NAMED
from bridge.sandbox.script import SCENARIOS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sandbox.md").read_text()


def test_every_fault_is_on_the_page_with_its_sentence_and_in_its_order() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", PAGE.split("\n## Faults\n")[1], re.MULTILINE)
    assert rows == [(name, fault.says) for name, fault in NAMED.items()]


def test_every_scenario_and_every_option_on_the_page_exists() -> None:
    parser = argparse.ArgumentParser()
    cli.add_verbs(parser.add_subparsers(), cli.Known())
    helped = " ".join(each.format_help() for each in parser._subparsers._group_actions[0].choices.values())  # type: ignore[union-attr]
    assert set(re.findall(r"--[a-z-]+", PAGE)) - {"---"} <= set(re.findall(r"--[a-z-]+", helped))
    assert all(f"`{name}`" in PAGE for name in SCENARIOS)


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/sandbox.md)" in (ROOT / "README.md").read_text()
