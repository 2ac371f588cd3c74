"""Define the result of an evaluation: plain values that benchmarks compute and that reports show.

Reports, comparisons, MLflow and the gates read it from `evaluation.json`, so they need no model, benchmark or torch.
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
"""Prefix of the note on a result that covers only part of its benchmark."""

VERSION = 1
"""Version of the file format. Raise it when older files can no longer be read."""


class EvaluationError(ValueError):
    """Error for a file without an evaluation, or for incomparable evaluations. The message is one line."""


@dataclass(frozen=True, slots=True)
class Score:
    """A share between 0 and 1; higher is better."""

    value: float
    low: float
    """Lower end of the 95 % interval, from a bootstrap over images."""
    high: float
    chance: float
    """Expected score of random guesses."""


@dataclass(frozen=True, slots=True)
class Group:
    """Number of cases and of correct answers for one relation, pair of attributes or class."""

    name: str
    cases: int
    correct: int
    low: float
    """Lower end of the 95 % interval of the accuracy."""
    high: float
    counted: bool = True
    """Whether the group enters the benchmark's mean."""

    @property
    def accuracy(self) -> float:
        """Share of the cases of the group that were won."""
        return self.correct / self.cases


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caption that a model could choose for a picture, or a picture that it could choose for a caption."""

    text: str
    """The caption or class name; for a picture, its label."""
    score: float
    """Cosine similarity that the model gives to the candidate."""
    is_true: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A case that the model got wrong."""

    case: str
    group: str
    picture: bytes
    """A small JPEG for a report page; empty if there is no picture."""
    candidates: list[Candidate]
    """The true candidates and the highest-scoring false ones, at least one of each."""


@dataclass(frozen=True)
class Result:
    """Result of one model on one benchmark."""

    name: str
    """Name of the benchmark in the suite, the first part of a score's full name "benchmark/score"."""
    kind: str
    """Kind of the benchmark, a key of `sclip.evaluate.kinds.KINDS`, for instance `vg-relation`."""
    definition: str
    headline: str
    """Name of the benchmark's main score, a key of `scores`."""
    scores: dict[str, Score]
    counts: dict[str, int]
    """Number of cases, images, captions, ties and so on behind the scores."""
    won: dict[str, bool]
    """Whether each case was won, by case name in the benchmark's order. Paired tests compare these values."""
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Caveats that a report shows before the figures: missing pictures, excluded cases."""
    examples: list[Example] = field(default_factory=list)
    digest: str = ""
    """SHA-256 of case names and captions, equal for models that got the same cases; "" in files of old versions."""

    @property
    def is_partial(self) -> bool:
        """Whether the scores leave out pictures of the benchmark."""
        return any(note.startswith(PARTIAL) for note in self.notes)


@dataclass(frozen=True)
class Evaluation:
    """Results of one model on all benchmarks."""

    model: str
    """Name that the user gave the model."""
    facts: dict[str, str]
    """Facts that identify model and measurement: weights checksum, parser, suite, versions, time."""
    results: list[Result]

    def scores(self) -> dict[str, float]:
        """Return every score as {"benchmark/score": value}, and the number of cases as "benchmark/cases"."""
        values = {f"{r.name}/{name}": score.value for r in self.results for name, score in r.scores.items()}
        return values | {f"{r.name}/cases": float(r.counts["cases"]) for r in self.results}

    def score(self, name: str) -> Score:
        """Return the score "benchmark/score". Raises KeyError if there is none."""
        return {f"{r.name}/{key}": score for r in self.results for key, score in r.scores.items()}[name]

    def require_results(self) -> None:
        """Raise EvaluationError if no benchmark was evaluated."""
        if not self.results:
            raise EvaluationError(f"{self.model}: evaluated on no benchmark; name one in the suite")

    def write(self, path: Path) -> None:
        """Write the evaluation as JSON, which `read` reads."""
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
        """Read an evaluation that `write` wrote. Raises EvaluationError naming the file and the mistake."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree["version"] != VERSION:
                raise EvaluationError(
                    f"{path}: file version {tree['version']}, but sclip reads {VERSION}; evaluate again"
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
        raise ValueError(f"{tree['name']} lacks its headline score, its number of cases, or the won cases")
    groups = [Group(**group) for group in tree["groups"]]
    examples = [_example(example) for example in tree["examples"]]
    return Result(**{**tree, "scores": scores, "groups": groups, "examples": examples})


def _example(tree: Mapping[str, Any]) -> Example:
    candidates = [Candidate(**candidate) for candidate in tree["candidates"]]
    return Example(tree["case"], tree["group"], base64.b64decode(tree["picture"]), candidates)
