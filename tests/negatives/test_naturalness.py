"""The model of naturalness is fitted to any captions, the same each time, and knows which ones it was fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sclip.benchmark.captions import generated
from sclip.negatives import fit_naturalness, naturalness
from sclip.scenegraph import Parser
from support.commands import command

CAPTIONS = generated(240)
NEW = generated(40, seed=7)


@pytest.fixture(scope="module")
def fitted(parser: Parser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "fitted.safetensors"
    tables = fit_naturalness.fit([CAPTIONS[:120], CAPTIONS[120:]], parser)
    again = fit_naturalness.fit([CAPTIONS[:120], CAPTIONS[120:]], parser)
    assert all(np.array_equal(tables[name], again[name]) for name in tables)
    fit_naturalness.save(tables, path, "generated")
    return path


@pytest.fixture
def used(fitted: Path) -> Iterator[Path]:
    naturalness.use(fitted)
    yield fitted
    naturalness.use(naturalness.PATH)


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("caption", "exchange"),
    [
        ("A man riding a horse on a beach", "A beach riding a horse on a man"),
        ("A glorf riding a horse on a beach", "A beach riding a horse on a glorf"),  # no caption has "glorf"
    ],
)
def test_an_exchange_that_no_caption_says_is_stranger_than_its_caption(caption: str, exchange: str) -> None:
    assert naturalness.strangeness(exchange) > naturalness.strangeness(caption)


@pytest.mark.usefixtures("used")
def test_a_model_knows_the_captions_that_it_was_fitted_to() -> None:
    assert all(map(naturalness.is_fitted, CAPTIONS))
    assert not any(map(naturalness.is_fitted, NEW))


def test_a_file_with_other_tensors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, captions = tmp_path / "old.safetensors", tmp_path / "captions.txt"
    fit_naturalness.save({"weights": np.zeros(4)}, path, "")
    captions.write_text("a dog\n")
    try:
        assert command("benchmark")("artefacts", "--captions", captions, "--naturalness", path) == 2
    finally:
        naturalness.use(naturalness.PATH)
    assert "write it again: sclip naturalness" in capsys.readouterr().err


def test_the_benchmark_separates_new_captions_from_those_that_the_model_was_fitted_to(
    used: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS[:40] + NEW))
    assert command("benchmark")("artefacts", "--captions", captions, "--naturalness", used) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[1:4]] == [
        "sclip, captions that its model of naturalness has not seen",
        "sclip, captions that it was trained on",
        "random swap of words",
    ]
    assert all("of 40 captions" in row for row in rows[1:3])
