"""Read SugarCrepe++'s two tasks from its authors' files: one JSON or a folder of five, and COCO val2017.

Source: Dumpala et al., "SugarCrepe++ dataset: Vision-language model sensitivity to semantic and lexical
alterations", NeurIPS 2024; github.com/Sri-Harsha/scpp at c083bbf, `VLMs/test_Variants_CLIP.py`. Each of these files is
a list of objects with `id`, `filename`, `caption`, `caption2` and `negative_caption`:

    swap_obj  swap_att  replace_obj  replace_att  replace_rel

- ITT, the image-to-text task: a case is won if both true captions score strictly higher than the false one. The
  scores P1 and P2 each test one of the true captions.
- TOT, the text-only task: a case is won if the similarity of the two true captions is strictly higher than the
  similarity of each true caption with the false one. The release's code does the same; its VLMs/README.md compares
  only one true caption with the false one.

The score of a file is its accuracy; `macro` is the mean over the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sclip.evaluate.benchmarks import (
    About,
    BenchmarkDataError,
    at_case,
    each,
    images_of,
    named_once,
    text_of,
)
from sclip.evaluate.picture import Picture
from sclip.evaluate.several import SeveralCase, SeveralTrue
from sclip.evaluate.text_only import TextCase, TextOnly

__all__ = ["KINDS", "read", "read_texts"]

KINDS = ("swap_obj", "swap_att", "replace_obj", "replace_att", "replace_rel")


class _Entry(NamedTuple):
    name: str
    kind: str
    filename: str
    true: tuple[str, str]
    false: str


def read(about: About, file: Path, images: Path | None = None) -> SeveralTrue:
    """Return the ITT task of one file, or of a folder with all five files. In a folder, each file is a group.

    Raises BenchmarkDataError naming file, case and field.
    """
    kinds = _kinds(file)
    folder = images_of(file / f"{KINDS[0]}.json" if kinds else file, images)
    cases = [
        SeveralCase(entry.name, Picture(str(folder / entry.filename)), entry.true, entry.false, entry.kind)
        for entry in _entries(file, kinds)
    ]
    means = {kind: (kind,) for kind in kinds}
    return SeveralTrue(about, cases, "itt", ("p1", "p2"), macro=bool(kinds), means=means)


def read_texts(about: About, file: Path) -> TextOnly:
    """Return the TOT task of one file or a folder. It needs no pictures; errors as in `read`."""
    kinds = _kinds(file)
    cases = [
        TextCase(entry.name, entry.true, entry.false, entry.kind, image=entry.filename)
        for entry in _entries(file, kinds)
    ]
    return TextOnly(about, cases, "tot", macro=bool(kinds), means={kind: (kind,) for kind in kinds})


def _kinds(file: Path) -> tuple[str, ...]:
    if not file.is_dir():
        return ()
    lacking = ", ".join(f"{kind}.json" for kind in KINDS if not (file / f"{kind}.json").is_file())
    if lacking:
        raise BenchmarkDataError(
            f"{file}: the folder lacks {lacking}; to measure some kinds only, name their files"
        )
    return KINDS


def _entries(file: Path, kinds: Sequence[str]) -> Iterator[_Entry]:
    for kind in kinds or ("",):
        path = file / f"{kind}.json" if kind else file
        entries = []
        for number, entry in each(path, "cases, SugarCrepe++'s format", list):
            with at_case(path, number):
                name = str(entry.get("id", number))
                true = text_of(entry, "caption"), text_of(entry, "caption2")
                false, filename = text_of(entry, "negative_caption"), text_of(entry, "filename")
                entries.append(_Entry(f"{kind}/{name}" if kind else name, kind, filename, true, false))
        named_once(path, (entry.name for entry in entries))
        yield from entries
