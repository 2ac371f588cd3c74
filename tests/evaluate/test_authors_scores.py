"""Scores of small files equal those of the authors' own programs, on features derived from names.

Each figure was printed by the program named above it, at the commit named, run on the files of
`support.benchmark_files` with a model that returns `support.hashed` features.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sclip.evaluate import suite
from support import benchmark_files
from support.hashed import hashed_features

AUTHORS_SCORES = {
    # github.com/Sri-Harsha/scpp, c083bbf: VLMs/test_Variants_CLIP.py
    "sugarcrepe-pp": {
        "swap_obj": 10 / 24, "swap_att": 6 / 24, "replace_obj": 9 / 24, "replace_att": 10 / 24,
        "replace_rel": 8 / 24, "p1": (13 + 11 + 12 + 13 + 11) / 120, "p2": (11 + 9 + 13 + 16 + 12) / 120,
    },
    "sugarcrepe-pp-text": {
        "swap_obj": 10 / 24, "swap_att": 11 / 24, "replace_obj": 7 / 24, "replace_att": 8 / 24, "replace_rel": 9 / 24,
    },
    # github.com/amitakamath/whatsup_vlms, 7c1f255: dataset_zoo/aro_datasets.py
    "whatsup-a": {"accuracy": 19 / 96, "pair": 1 / 48, "set": 0},
    "whatsup-b": {"accuracy": 35 / 96, "pair": 8 / 48, "set": 0},
    "whatsup-coco-one": {"accuracy": 13 / 24},
    "whatsup-coco-two": {"accuracy": 14 / 24},
    "whatsup-vg-one": {"accuracy": 15 / 24},
    "whatsup-vg-two": {"accuracy": 10 / 24},
    # github.com/IMirandaM/BiVLC, 84f0d17: src/CLIP_fine_tuning/CLIP_utils.py
    "bivlc": {
        "image_to_text": 8 / 24, "text_to_image": 8 / 24, "group": 6 / 24, "replace": 0, "swap": 5 / 8, "add": 1 / 8,
    },
    # github.com/m1k2zoo/negbench, 2ac009b: benchmarks/src/evaluation/mcq.py and retrieval.py
    "negbench-coco": {"accuracy": 7 / 24, "positive": 3 / 8, "negative": 1 / 8, "hybrid": 3 / 8},
    "negbench-coco-plain": {
        "text_to_image_r1": 3 / 48, "text_to_image_r5": 12 / 48, "text_to_image_r10": 20 / 48,
        "image_to_text_r1": 0, "image_to_text_r5": 7 / 24, "image_to_text_r10": 11 / 24,
    },
    "negbench-coco-negated": {
        "text_to_image_r1": 3 / 48, "text_to_image_r5": 13 / 48, "text_to_image_r10": 19 / 48,
        "image_to_text_r1": 3 / 24, "image_to_text_r5": 5 / 24, "image_to_text_r10": 13 / 24,
    },
    # github.com/tsb0601/MMVP, 7635005: scripts/evaluate_vlm.py
    "mmvp-vlm": {"image": (2 + 6 + 5 + 4 + 2 + 2 + 3 + 0 + 2) / 135},
    # github.com/amitakamath/hard_positives, 33addaa: run_eval.py
    "hard-positives-swap": {
        "original": 12 / 24, "positive": 12 / 24, "augmented": 7 / 24, "not_brittle": 1 - (5 + 5) / 24,
    },
    "hard-positives-attribute": {
        "original": 17 / 24, "positive": 12 / 24, "augmented": 10 / 24, "not_brittle": 1 - (7 + 2) / 24,
    },
    "hard-positives-relation": {
        "original": 16 / 24, "positive": 14 / 24, "augmented": 11 / 24, "not_brittle": 1 - (5 + 3) / 24,
    },
    # github.com/beichenzbc/Long-CLIP, 3966af9: eval/retrieval/Urban1k.py
    "urban1k": {"text_to_image_r1": 1 / 24, "image_to_text_r1": 2 / 24},
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    for write in dict.fromkeys(benchmark_files.NEWER.values()):
        write(root, 24)
    return root


@pytest.mark.parametrize("name", AUTHORS_SCORES)
def test_each_score_equals_that_of_the_authors_program(files: Path, name: str) -> None:
    (entry,) = [entry for entry in suite.read("all", files) if entry.name == name]
    task = entry.task()
    scores = task.result(hashed_features(task)).scores
    expected = AUTHORS_SCORES[name]
    assert {score: scores[score].value for score in expected} == pytest.approx(expected)
