"""Tables of sentences and their expected results, one row per line."""

from __future__ import annotations


def table(text: str) -> list[tuple[str, str]]:
    """Return both sides of each line's arrow. An indented line continues the line before; # starts a comment."""
    rows = (line.split("->") for line in text.replace("\n    ", " ").splitlines())
    return [(row[0].strip(), row[1].strip()) for row in rows if not row[0].startswith("#") and row[1:]]
