"""Scores of small files as the authors' own programs gave them, on features that follow from names.

Each figure was printed by the program named above it, at the commit named, run on the files of
`support.benchmark_files` with a model that returns `support.hashed` features.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.evaluate import suite
from support import benchmark_files
from support.hashed import hashed_features

OF_AUTHORS = {
    # github.com/Sri-Harsha/scpp, c083bbf: VLMs/test_Variants_CLIP.py
    "sugarcrepe-pp": {
        "swap_obj": 10 / 24, "swap_att": 6 / 24, "replace_obj": 9 / 24, "replace_att": 10 / 24,
        "replace_rel": 8 / 24, "p1": (13 + 11 + 12 + 13 + 11) / 120, "p2": (11 + 9 + 13 + 16 + 12) / 120,
    },
    "sugarcrepe-pp-text": {
        "swap_obj": 10 / 24, "swap_att": 11 / 24, "replace_obj": 7 / 24, "replace_att": 8 / 24, "replace_rel": 9 / 24,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    for write in benchmark_files.WRITERS.values():
        write(root)
    return root


@pytest.mark.parametrize("name", OF_AUTHORS)
def test_each_score_is_the_one_that_the_authors_program_gives(files: Path, name: str) -> None:
    (entry,) = [entry for entry in suite.read("all", files) if entry.name == name]
    task = entry.task()
    scores = task.result(hashed_features(task)).scores
    expected = OF_AUTHORS[name]
    assert {score: scores[score].value for score in expected} == pytest.approx(expected)
