"""Marks of what was left out, as a page shows them: each says by itself what stood there. In exports they are plain text."""

from __future__ import annotations

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from calls.marks import MARK, WORDS

register = template.Library()


@register.filter
def with_marks(text: str) -> SafeString:
    """A text whose marks can be told from what people said. All of it is escaped."""
    said, begin = str(text), 0
    parts: list[SafeString] = []
    for found in MARK.finditer(said):
        parts += [format_html("{}", said[begin : found.start()]), _shape(found[0])]
        begin = found.end()
    return format_html_join("", "{}", ((part,) for part in (*parts, said[begin:])))


@register.simple_tag
def mark_shapes() -> SafeString:
    """The shape of each mark, for the script that fills pages later."""
    return format_html_join("", '<template data-mark="{}">{}</template>', ((mark, _shape(mark)) for mark in WORDS))


def _shape(mark: str) -> SafeString:
    return format_html('<span class="left-out" role="img" aria-label="{}" title="{}">{}</span>', WORDS[mark], WORDS[mark], mark)
