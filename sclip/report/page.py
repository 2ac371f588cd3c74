"""Render templates as self-contained HTML pages, in which captions are plain text and never markup."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sclip.report.texts import MOST_CHARACTERS, shortened


def render(template: str, **values: Any) -> str:
    """Return a page rendered from a template in `sclip/report/templates`; every value is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sclip.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = lambda text: shortened(text, MOST_CHARACTERS)
    return environment
