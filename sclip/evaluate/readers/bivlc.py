"""Read BiVLC from its authors' Parquet files, which hold the pictures.

Source: Miranda et al., "BiVLC: Extending vision-language compositionality evaluation with text-to-image
retrieval", NeurIPS 2024; the dataset imirandam/BiVLC; github.com/IMirandaM/BiVLC at 84f0d17, `evaluate_BiVLC`.

The files have the columns `image`, `caption`, `negative_caption`, `negative_image`, `type` (replace, swap, add)
and `subtype` (obj, att, rel). I2T is Winoground's text score, and T2I is its image score. A tie is lost. The
authors also report the group score of each type.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, BenchmarkDataError
from sclip.evaluate.pairs import Pairs
from sclip.evaluate.readers.paired_tables import paired_rows

__all__ = ["read"]


def read(about: About, file: Path) -> Pairs:
    """Return the task of a Parquet file or a folder of them. Raises BenchmarkDataError naming file, column or row."""
    columns = ("image", "negative_image"), ("caption", "negative_caption")
    cases = list(paired_rows(file, *columns, group=("type",)))
    if not cases:
        raise BenchmarkDataError(f"{file}: no rows; it must hold a row for each case")
    means = {kind: (kind,) for kind in sorted({case.group for case in cases})}
    return Pairs(about, cases, titles={"text": "image_to_text", "image": "text_to_image"}, means=means)
