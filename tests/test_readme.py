"""The README's tables, the example environment and the code say the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, resolve

from bridge.routing import media_urlpatterns
from calls.console.routing import websocket_urlpatterns
from supportvoice import urls

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "supportvoice" / "settings.py").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
NAME = re.compile(r"`([A-Z][A-Z0-9_]+)`")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def in_settings() -> set[str]:
    return set(re.findall(r'\benv(?:\.\w+)?\(\s*"([A-Z0-9_]+)"', SETTINGS))


def in_readme() -> set[str]:
    """The names of the first column; the others are mentioned, not defined."""
    rows = [line.split("|")[1] for line in section("Settings").splitlines() if line.startswith("| `")]
    return {name for row in rows for name in NAME.findall(row)}


def test_every_setting_has_its_line_in_the_readme_and_no_other_is_promised() -> None:
    assert in_readme() == in_settings()


def test_the_example_environment_names_every_setting() -> None:
    assert set(re.findall(r"^([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)) == in_settings()


@pytest.mark.parametrize("door", re.findall(r"`(?:GET|POST)?\s*(/[a-z/]*)`", section("Doors")))
def test_every_door_of_the_readme_opens(door: str) -> None:
    assert resolve(door)


def routes(patterns: Iterable[URLPattern | URLResolver], above: str = "/") -> Iterator[str]:
    """Every address of ours; the admin's own are one."""
    for pattern in patterns:
        here = above + str(pattern.pattern)
        if isinstance(pattern, URLResolver) and here != "/admin/":
            yield from routes(pattern.url_patterns, here)
        else:
            yield here


def test_every_address_of_ours_has_its_row_in_the_readme() -> None:
    told = {door for row in section("Doors").splitlines() for door in re.findall(r"`(?:GET |POST )?(/[^`]*)`", row.split(" | ")[0])}
    below = tuple(door.removesuffix("…") for door in told if door.endswith("…"))
    ours = {*routes(urls.urlpatterns), *routes([*websocket_urlpatterns, *media_urlpatterns(resolve)])}
    assert [route for route in sorted(ours) if not {route, route.rstrip("/")} & told and not route.startswith(below)] == []
    assert [door for door in sorted(told) if door.endswith("…") and not any(route.startswith(door[:-1]) for route in ours)] == []


def test_every_command_of_the_readme_exists() -> None:
    told = set(re.findall(r"`python manage\.py (\w+)", section("Commands")))
    assert told == {name for name, app in get_commands().items() if app == "supportvoice"}


def test_the_picture_of_the_console_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)


def test_nothing_in_the_readme_waits_to_be_filled_in() -> None:
    assert "<!--" not in README
