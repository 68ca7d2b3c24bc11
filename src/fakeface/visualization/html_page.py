"""Pages of one HTML file that needs nothing else: one style sheet, all names escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STYLE = Path(__file__).with_name("page.css")


def render_page(template: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return a Jinja template filled with `values` and, as `style`, the style sheet.

    Raises:
        jinja2.UndefinedError: the template names a value that nobody gave.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"one_line": escape_control_characters, **filters}
    style = Markup(STYLE.read_text(encoding="utf-8"))
    return environment.from_string(template.read_text(encoding="utf-8")).render(style=style, **values)


def escape_control_characters(name: str) -> str:
    """Return a name with its line breaks and other unprintable characters written out as in Python."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
