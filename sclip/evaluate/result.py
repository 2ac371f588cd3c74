"""What an evaluation found: plain values between the benchmarks, which compute them, and all who show or judge them.

Written as `evaluation.json` and read back, so that a report, a comparison, MLflow and the gates need no model and no
benchmark file, and torch is not imported here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sclip.storage.paths import StoragePath

__all__ = [
    "EVALUATION_FILE",
    "PARTIAL",
    "Candidate",
    "Evaluation",
    "EvaluationError",
    "Example",
    "Group",
    "Result",
    "Score",
]

EVALUATION_FILE = "evaluation.json"
PARTIAL = "partial: "
"""Start of the note of a result scored on part of its benchmark."""

VERSION = 1
"""Raise it when an older file could no longer be read."""


class EvaluationError(ValueError):
    """A file that holds no evaluation, or evaluations that cannot be compared; one line for the user."""


@dataclass(frozen=True, slots=True)
class Score:
    """A share between 0 and 1, higher being better."""

    value: float
    low: float
    """Lower end of the 95 % interval, from a bootstrap over images."""
    high: float
    chance: float
    """What guessing reaches; a model whose texts lean to one form of caption lies beside it, in either direction."""


@dataclass(frozen=True, slots=True)
class Group:
    """The cases of one relation, pair of attributes or class."""

    name: str
    cases: int
    correct: int
    low: float
    """Lower end of the 95 % interval of the accuracy."""
    high: float
    counted: bool = True
    """Whether the benchmark's mean takes it in; shown all the same where not."""

    @property
    def accuracy(self) -> float:
        """Share of its cases that were won."""
        return self.correct / self.cases


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a model chose among: a caption, or a picture where the caption is given, and how it scored."""

    text: str
    """The caption or class name; of a picture what it is called."""
    score: float
    """Cosine with what was asked."""
    is_true: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A case that the model got wrong."""

    case: str
    group: str
    picture: bytes
    """A JPEG, no larger than a page needs."""
    candidates: list[Candidate]
    """The true ones and the false ones that scored highest, at least one of each."""


@dataclass(frozen=True)
class Result:
    """One benchmark of one model."""

    name: str
    """What the suite calls it; first half of each score's name."""
    kind: str
    """Key of the benchmark's definition, `vg-relation` for instance."""
    definition: str
    """One sentence for the reader of a report: what is asked, whose benchmark it is."""
    headline: str
    """The published figure: a key of `scores`."""
    scores: dict[str, Score]
    counts: dict[str, int]
    """cases, images, captions, ties: what the scores were computed of."""
    won: dict[str, bool]
    """By name of the case whether it was won, in the benchmark's order: what a paired test compares."""
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the reader must know before the figures: pictures that were missing, cases that were excluded."""
    examples: list[Example] = field(default_factory=list)
    digest: str = ""
    """SHA-256 of the names of the cases and of all captions: equal where models were asked the same. Empty: unknown, in
    files of older versions."""

    @property
    def is_partial(self) -> bool:
        """Whether pictures of the benchmark were missing or left out."""
        return any(note.startswith(PARTIAL) for note in self.notes)


@dataclass(frozen=True)
class Evaluation:
    """All benchmarks of one model."""

    model: str
    """How the user named it."""
    facts: dict[str, str]
    """What identifies model and measurement, name and value: weights' checksum, parser, suite, versions, time."""
    results: list[Result]

    def scores(self) -> dict[str, float]:
        """Return every score as {"benchmark/score": value}, and the number of cases as "benchmark/cases"."""
        found = {f"{r.name}/{name}": score.value for r in self.results for name, score in r.scores.items()}
        return found | {f"{r.name}/cases": float(r.counts["cases"]) for r in self.results}

    def score(self, name: str) -> Score:
        """Return the score "benchmark/score"; KeyError where there is none."""
        return {f"{r.name}/{key}": score for r in self.results for key, score in r.scores.items()}[name]

    def require_results(self) -> None:
        """Raise EvaluationError where no benchmark was evaluated: there is nothing to show or to judge."""
        if not self.results:
            raise EvaluationError(f"{self.model}: evaluated on no benchmark; name one in the suite")

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        tree = {"version": VERSION} | asdict(self)
        for result in tree["results"]:
            for example in result["examples"]:
                example["picture"] = base64.b64encode(example["picture"]).decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: StoragePath) -> Evaluation:
        """Return what `write` wrote. Raises EvaluationError naming the file and what is wrong with it."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree["version"] != VERSION:
                raise EvaluationError(
                    f"{path}: of version {tree['version']}, this is {VERSION}; evaluate again"
                )
            facts = {name: str(value) for name, value in tree["facts"].items()}
            return cls(str(tree["model"]), facts, [_result(entry) for entry in tree["results"]])
        except KeyError as error:
            raise EvaluationError(f"{path}: holds no evaluation: no field {error}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, EvaluationError):
                raise
            raise EvaluationError(f"{path}: holds no evaluation: {error}") from error


def _result(tree: Mapping[str, Any]) -> Result:
    scores = {
        name: Score(**{end: float(value) for end, value in score.items()})
        for name, score in tree["scores"].items()
    }
    if tree["headline"] not in scores or "cases" not in tree["counts"] or not isinstance(tree["won"], dict):
        raise ValueError(f"{tree['name']} is without its headline, its number of cases, or which were won")
    groups = [Group(**group) for group in tree["groups"]]
    examples = [_example(example) for example in tree["examples"]]
    return Result(**{**tree, "scores": scores, "groups": groups, "examples": examples})


def _example(tree: Mapping[str, Any]) -> Example:
    candidates = [Candidate(**candidate) for candidate in tree["candidates"]]
    return Example(tree["case"], tree["group"], base64.b64decode(tree["picture"]), candidates)
