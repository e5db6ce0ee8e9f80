"""HTML and SVG elements as text: all other text in them is escaped."""

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Iterable[str | None] | None
_VOID = ("input", "link", "meta")  # elements without an end


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """Return the element ``name``; ``class_`` is class, ``data_kind`` is data-kind.

    A child of None and an attribute of None or False are left out; True has no value.
    """
    described = "".join(_attribute(*item) for item in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{described}>")
    return Markup(f"<{name}{described}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Return ``children`` one after another, each escaped unless it is ``Markup``."""
    found: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            found.append(child)
        elif isinstance(child, str):
            found.append(escape(child))
        elif child is not None:
            found.append(joined(*child))
    return Markup("".join(found))


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{escape(str(value))}"'
