"""Read SugarCrepe from its authors' files: one JSON or the folder of all seven, and COCO val2017.

Source: Hsieh et al., "SugarCrepe: Fixing hackable benchmarks for vision-language compositionality", NeurIPS 2023;
github.com/RAIVNLab/sugar-crepe, MIT, `main_eval.py`. Each of these files maps an id to `filename`, `caption` and
`negative_caption`:

    replace_obj  replace_att  replace_rel  swap_obj  swap_att  add_obj  add_att

A case is won if the true caption scores strictly higher. A file's score is its accuracy. The paper's tables also
have the means over the three replace files, the two swap files, and the two add files.
"""

from __future__ import annotations

from pathlib import Path

from sclip.evaluate.benchmarks import About, BenchmarkDataError, at_case, each, images_of, text_of
from sclip.evaluate.choice import Choice, ChoiceCase
from sclip.evaluate.picture import Picture

__all__ = ["KINDS", "read"]

KINDS = ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att")


def read(about: About, file: Path, images: Path | None = None) -> Choice:
    """Return the task of one file, or of a folder with all seven files. In a folder, each file is a group.

    The headline of a folder is `macro`, the mean over its files. Raises BenchmarkDataError naming file, case and field.
    """
    if not file.is_dir():
        return Choice(about, _cases(file, images_of(file, images), ""))
    present = [kind for kind in KINDS if (file / f"{kind}.json").is_file()]
    if len(present) < len(KINDS):
        lacking = ", ".join(f"{kind}.json" for kind in KINDS if kind not in present)
        raise BenchmarkDataError(
            f"{file}: the folder lacks {lacking}; to measure some kinds only, name their files"
        )
    folder = images_of(file / "replace_obj.json", images)
    cases = [case for kind in KINDS for case in _cases(file / f"{kind}.json", folder, kind)]
    means: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in KINDS}
    means |= {part: tuple(k for k in KINDS if k.startswith(part)) for part in ("replace", "swap", "add")}
    return Choice(about, cases, macro=True, means=means)


def _cases(file: Path, images: Path, kind: str) -> list[ChoiceCase]:
    cases = []
    for name, entry in each(file, "cases, SugarCrepe's format", dict):
        with at_case(file, name):
            picture = Picture(str(images / text_of(entry, "filename")))
            true, false = text_of(entry, "caption"), text_of(entry, "negative_caption")
            cases.append(ChoiceCase(f"{kind}/{name}" if kind else name, picture, true, (false,), kind))
    return cases
