"""Read VALSE from its authors' files: one JSON for each instrument, and its image folder.

Source: Parcalabescu et al., "VALSE: A task-independent benchmark for vision and language models centered on linguistic
phenomena", ACL 2022; github.com/Heidelberg-NLP/VALSE, MIT, `lxmert_valse_eval.py`. Each file maps an id to
`image_file`, `caption`, `foil` and `mturk`. A case with the votes `mturk` counts only if at least 2 of 3 annotators
chose its caption. The score is the authors' acc_r, the share of cases whose caption scores higher than its foil.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, at_case, each, images_of, text_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture

__all__ = ["LEAST_VOTES", "read"]

LEAST_VOTES = 2


def read(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of a file such as `existence.json`. Raises BenchmarkDataError naming file, case and field."""
    folder = images_of(file, images)
    cases = []
    for name, entry in each(file, "cases, VALSE's format", dict):
        with at_case(file, name):
            if isinstance(entry["caption"], list):  # some instruments have a list of one caption
                entry = {**entry, "caption": entry["caption"][0]}
            picture = Picture(str(folder / text_of(entry, "image_file")))
            valid = int(entry["mturk"]["caption"]) >= LEAST_VOTES if "mturk" in entry else True
            captions = text_of(entry, "caption"), text_of(entry, "foil")
            cases.append(ChoiceCase(name, picture, captions[0], (captions[1],), counted=valid))
    return Choice(about, cases)
