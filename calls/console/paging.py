"""Pages of a list that may be as long as the years. Counting stops at COUNTED, and so do the pages: older rows are found by date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet

PER_PAGE = 50
COUNTED = 10_000

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """Some rows of a list in its order. `count` is at most COUNTED; `number` starts at 1."""

    rows: list[M]
    number: int
    pages: int
    count: int

    @property
    def is_all_counted(self) -> bool:
        return self.count < COUNTED

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.number + 1 if self.number < self.pages else None


def page_of(found: QuerySet[M], query: Mapping[str, str]) -> Page[M]:
    """The page an address asks for by `?page=`, the nearest one where there is no such. Two queries."""
    count = found.order_by().values("pk")[:COUNTED].count()
    pages = max(-(-count // PER_PAGE), 1)
    asked = query.get("page", "")
    number = min(max(int(asked), 1), pages) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 1
    start = (number - 1) * PER_PAGE
    return Page(rows=list(found[start : start + PER_PAGE]) if count else [], number=number, pages=pages, count=count)
