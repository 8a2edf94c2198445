"""What a browser sends of a page as it came, read from its HTML: no field that the page does not hold."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

SENT_WHEN_PRESSED = ("submit", "button", "image", "reset", "file")


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._select = self._area = ""
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "input":
                self._take_input(given)
            case "select":
                self._select = given.get("name", "")
            case "textarea":
                self._area, self._text = given["name"], []
            case "option" if "selected" in given:
                self._add(self._select, given.get("value", ""))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._add(self._area, "".join(self._text).removeprefix("\n"))

    def _take_input(self, given: dict[str, str]) -> None:
        kind = given.get("type", "text")
        if kind in SENT_WHEN_PRESSED or (kind in ("checkbox", "radio") and "checked" not in given):
            return
        self._add(given.get("name", ""), given.get("value", "on" if kind == "checkbox" else ""))

    def _add(self, name: str, value: str) -> None:
        if name:
            self.found.setdefault(name, []).append(value)


def fields_of(page: Any) -> dict[str, list[str]]:
    """The page's fields with what stands in them, as `Client.post` takes them."""
    reader = _Fields()
    reader.feed(page.content.decode())
    return reader.found
