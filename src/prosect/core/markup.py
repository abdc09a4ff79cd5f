"""HTML primitives: elements whose text is always escaped, for reports and for notebooks.

Everything that comes from a model or from data passes through `element` or `escape`; only what prosect
itself wrote is ever marked as safe.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "line", "rect", "circle", "path", "polyline"})


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``; children and attribute values are escaped unless already Markup.

    A trailing underscore is dropped from attribute names and inner ones become hyphens
    (``class_``, ``aria_label``); True gives a bare attribute, None and False none at all.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    if tag in VOID and not children:
        return Markup(opening[:-1] + "/>")
    return Markup(f"{opening}{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Markup:
    """Children side by side, nested lists flattened, None dropped, text escaped."""
    out: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, list | tuple):
            out.append(join(child))
        else:
            out.append(escape(child))
    return Markup("").join(Markup(o) for o in out)


CARD_STYLE = (
    "font:14px/1.45 system-ui,sans-serif;border:1px solid #8888;border-radius:6px;padding:.6em .9em;"
    "max-width:44rem"
)


def card(title: str, rows: Iterable[tuple[str, object]], caveat: str = "") -> Markup:
    """The small script-free card that every main object shows in a notebook."""
    table = element(
        "table",
        [
            element("tr", element("th", k, style="text-align:left;padding-right:1em"), element("td", v))
            for k, v in rows
        ],
    )
    foot = element("p", caveat, style="opacity:.75;margin:.4em 0 0") if caveat else None
    return element("div", element("strong", title), table, foot, style=CARD_STYLE)
