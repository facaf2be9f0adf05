"""HTML as text: whatever is not markup already is escaped."""

from __future__ import annotations

from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, attributes: dict[str, Any] | None = None, *children: str | None) -> Markup:
    """An element; attributes that are None or False are left out, those that are True have no value.

    >>> tag("p", {"class": "a", "hidden": True}, tag("b", None, "1 < 2"), '"&"')
    '<p class="a" hidden><b>1 &lt; 2</b>&quot;&amp;&quot;</p>'
    """
    given = [(key, value) for key, value in (attributes or {}).items() if value is not None and value is not False]
    head = "".join(f" {key}" if value is True else f' {key}="{escape(str(value))}"' for key, value in given)
    end = "" if name in ("img", "br", "col") else f"{join(*children)}</{name}>"
    return Markup(f"<{name}{head}>{end}")


def join(*children: str | None) -> Markup:
    """Several after each other."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))
