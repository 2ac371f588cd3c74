"""Small files of every benchmark in its authors' format, written below one folder as the suites look for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = ("red", "green", "blue", "white")
CASES = 24


def written(file: Path, content: Any) -> Path:
    """Write JSON, a line for each of `content` where the name ends in "l" or "lines", or text as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.startswith(".jsonl"):
        content = "".join(f"{json.dumps(line)}\n" for line in content)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def sugarcrepe_pp(root: Path) -> None:
    for kind in ("swap_obj", "swap_att", "replace_obj", "replace_att", "replace_rel"):
        entries = [
            {
                "id": 3 * number, "filename": f"{number // 2:012d}.jpg",
                "caption": f"a {COLOURS[number % 4]} cup by bowl {number}, {kind}",
                "caption2": f"by bowl {number} stands a {COLOURS[number % 4]} cup, {kind}",
                "negative_caption": f"a {COLOURS[number % 3]} bowl by cup {number}, {kind}",
            }
            for number in range(CASES)
        ]  # fmt: skip
        written(root / "sugarcrepe_pp" / f"{kind}.json", entries)


WRITERS: Mapping[str, Any] = {"sugarcrepe_pp": sugarcrepe_pp}
