"""Evaluations are written and read back, and a malformed file is refused with its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sclip.evaluate.result import Candidate, Evaluation, EvaluationError, Example
from support.registered import RELATION, evaluation

MEASURED = evaluation({RELATION: 0.7})


def test_an_evaluation_reads_back_as_written(tmp_path: Path) -> None:
    MEASURED.results[0].examples[:] = [Example("1", "on", b"jpeg", [Candidate("a dog", 0.2, True)])]
    MEASURED.write(tmp_path / "below" / "evaluation.json")
    assert Evaluation.read(tmp_path / "below" / "evaluation.json") == MEASURED


def changed(tmp_path: Path, **fields: Any) -> str:
    """Return an evaluation as JSON text, with some fields of its first result changed."""
    MEASURED.write(tmp_path / "whole.json")
    tree = json.loads((tmp_path / "whole.json").read_text())
    tree["results"][0] |= fields
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "holds no evaluation"),
        ("{}", "no field 'version'"),
        ('{"version": 0}', "file version 0, but sclip reads 1; evaluate again"),
        ('{"version": 1, "model": "m", "facts": 3, "results": []}', "holds no evaluation"),
        ("[" * 100_000, "maximum recursion depth"),
        ({"headline": "other"}, "vg_relation lacks its headline"),
        ({"counts": {}}, "its number of cases"),
        ({"won": []}, "the won cases"),
        (
            {"scores": {"macro": dict.fromkeys(("value", "low", "high", "chance"), "much")}},
            "could not convert",
        ),
        ({"unknown": 1}, "unexpected keyword argument 'unknown'"),
    ],
)
def test_a_malformed_evaluation_file_is_refused_with_its_name(
    tmp_path: Path, content: str | dict[str, Any], message: str
) -> None:
    text = content if isinstance(content, str) else changed(tmp_path, **content)
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"evaluation\.json: ") as raised:
        Evaluation.read(tmp_path / "evaluation.json")
    assert message in str(raised.value)
