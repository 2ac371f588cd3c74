"""Read NegBench from its authors' files: a CSV and its pictures.

Source: Alhamoud et al., "Vision-language models do not understand negation", CVPR 2025; github.com/m1k2zoo/negbench
at 2ac009b, `src/training/data.py` and `src/evaluation/`.

- multiple choice: the columns are `image_path`, `caption_0` to `caption_3` (the binary form has two captions),
  `correct_answer` (the index of the true caption) and `correct_answer_template`. Each template (positive, negative
  and hybrid) has its own accuracy. A tie is won if the true caption comes first in every case of the file, as in
  the files of COCO and VOC2007 (the authors take the first caption with the highest score); else it is lost.
- retrieval: the columns are `filepath` and `captions` (a Python list). Plain captions and captions with a negation
  are two files. The paper reports text-to-image R@5; R@1 and R@10 are scores too. A tie counts against the model.

The files contain paths on the authors' machine, so only the last parts of a path must exist in the picture folder.
"""

from __future__ import annotations

import ast
from pathlib import Path

from sclip.evaluate.benchmarks import About, at_case, images_of, located, text_of, texts_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture
from sclip.evaluate.readers.lines import csv_rows
from sclip.evaluate.retrieval import Captioned, Retrieval

__all__ = ["TEMPLATES", "choices", "retrieval"]

TEMPLATES = ("positive", "negative", "hybrid")


def choices(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a multiple choice file. Raises BenchmarkDataError naming file, case and column."""
    folder = images_of(file, images)
    cases, answers = [], set()
    for number, row in enumerate(csv_rows(file, ("image_path", "caption_0", "caption_1", "correct_answer"))):
        with at_case(file, number):
            captions = [text_of(row, f"caption_{n}") for n in range(len(row)) if f"caption_{n}" in row]
            answer, template = int(row["correct_answer"]), row.get("correct_answer_template", "")
            if not 0 <= answer < len(captions):
                raise ValueError(f"correct_answer={answer}: must be from 0 to {len(captions) - 1}")
            if template and template not in TEMPLATES:
                raise ValueError(
                    f"correct_answer_template={template!a}: must be one of {', '.join(TEMPLATES)}"
                )
            true = captions.pop(answer)
            picture = Picture(str(located(folder, text_of(row, "image_path"))))
            cases.append(ChoiceCase(str(number), picture, true, tuple(captions), template))
            answers.add(answer)
    means = {template: (template,) for template in TEMPLATES}
    return Choice(about, cases, means=means, ties_win=answers == {0})


def retrieval(about: About, file: Path, images: Path | None = None) -> Retrieval:
    """Return the task of a retrieval file. Raises BenchmarkDataError naming file, case and column."""
    folder = images_of(file, images)
    records = []
    for number, row in enumerate(csv_rows(file, ("filepath", "captions"))):
        with at_case(file, number):
            name, captions = (
                text_of(row, "filepath"),
                texts_of({"captions": _list(row["captions"])}, "captions"),
            )
            records.append(Captioned(name, Picture(str(located(folder, name))), captions))
    return Retrieval(about, records)


def _list(written: str) -> object:
    try:
        return ast.literal_eval(written.strip())
    except SyntaxError as error:
        raise ValueError(f"captions={written[:50]!a} must be a Python list of texts") from error
