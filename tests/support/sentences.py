"""Tables of sentences and what is made of them, a row a line."""

from __future__ import annotations


def table(text: str) -> list[tuple[str, str]]:
    """Return the two sides of the arrow of each line; a line goes on where it is indented, and # begins a comment."""
    rows = (line.split("->") for line in text.replace("\n    ", " ").splitlines())
    return [(row[0].strip(), row[1].strip()) for row in rows if not row[0].startswith("#") and row[1:]]
