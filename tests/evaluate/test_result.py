"""What an evaluation found, written and read back; and a file that is none, told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.result import Candidate, Evaluation, EvaluationError, Example
from support.registered import RELATION, evaluation

MEASURED = evaluation({RELATION: 0.7})


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    MEASURED.results[0].examples[:] = [Example("1", "on", b"jpeg", [Candidate("a dog", 0.2, True)])]
    MEASURED.write(tmp_path / "below" / "evaluation.json")
    assert Evaluation.read(tmp_path / "below" / "evaluation.json") == MEASURED


def changed(tmp_path: Path, **fields: Any) -> str:
    """Return a written evaluation with other fields in its first result."""
    MEASURED.write(tmp_path / "whole.json")
    tree = json.loads((tmp_path / "whole.json").read_text())
    tree["results"][0] |= fields
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[1]", "holds no evaluation"),
        ("{}", "no field 'version'"),
        ('{"version": 0}', "of version 0, this is 1; evaluate again"),
        ('{"version": 1, "model": "m", "facts": 3, "results": []}', "holds no evaluation"),
        ("[" * 100_000, "maximum recursion depth"),
        ({"headline": "other"}, "vg_relation is without its headline"),
        ({"counts": {}}, "its number of cases"),
        ({"won": []}, "which were won"),
        (
            {"scores": {"macro": dict.fromkeys(("value", "low", "high", "chance"), "much")}},
            "could not convert",
        ),
        ({"unknown": 1}, "unexpected keyword argument 'unknown'"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str | dict[str, Any], found: str) -> None:
    text = content if isinstance(content, str) else changed(tmp_path, **content)
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"evaluation\.json: ") as raised:
        Evaluation.read(tmp_path / "evaluation.json")
    assert found in str(raised.value)
