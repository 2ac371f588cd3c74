"""Write `blend.html`: two scores of each blend of a start model and a trained model, and the chosen blend.

A blend mixes the weights of both models. `sclip.evaluate.tradeoff` chooses one on the development split, by a gained
score and a kept score. The curve and its table show all blends on this split. The bars show the start model, the chosen
blend and the trained model on another split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sclip.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, curves
from sclip.report.page import render
from sclip.report.score_bars import called, percent, score_row
from sclip.report.texts import shortened

if TYPE_CHECKING:
    from sclip.evaluate.result import Evaluation, Score
    from sclip.evaluate.tradeoff import Point, Tradeoff

__all__ = ["PAGE", "line", "told", "write"]

PAGE = "blend.html"


def told(tradeoff: Tradeoff) -> str:
    """Describe the chosen blend in a sentence."""
    start, chosen = tradeoff.points[0], tradeoff.chosen
    if chosen.a == start.a:
        return (
            f"a = 0, the start itself: no blend raises {tradeoff.gained} and keeps {percent(tradeoff.keep)} %"
        )
    return (
        f"a = {chosen.a:g}: on the development split {tradeoff.gained} {percent(chosen.gained.value)} (start "
        f"{percent(start.gained.value)}); {tradeoff.kept} {percent(chosen.kept.value)}, {_share(chosen, start)}"
    )


def line(tradeoff: Tradeoff, point: Point) -> str:
    """Describe the gained score and the kept score of the blend `point`, with 95 % intervals."""
    share = _share(point, tradeoff.points[0])
    return f"{tradeoff.gained} {_with_interval(point.gained)}; {tradeoff.kept} {_with_interval(point.kept)}, {share}"


def _share(point: Point, start: Point) -> str:
    whole = f"the start's {percent(start.kept.value)}"
    return (
        f"{percent(point.kept.value / start.kept.value)} % of {whole}"
        if start.kept.value
        else f"against {whole}"
    )


def _with_interval(score: Score) -> str:
    return f"{percent(score.value)} ({percent(score.low)} to {percent(score.high)})"


def write(
    tradeoff: Tradeoff, reported: Sequence[Evaluation], folder: Path, notes: Sequence[str] = ()
) -> Path:
    """Write the page into the folder; return its path. `notes` are lines at the top of the page.

    `reported` are the evaluations of the start model, the chosen blend and the trained model on another split.
    """
    points = tradeoff.points
    positions = [(100 * p.kept.value, 100 * p.gained.value) for p in points]
    series = [positions, *([position] for position in positions)]  # the curve, then its points
    drawing = curves(series, 100 * points[0].gained.chance, by_step=False)
    dots = [(points[line.index - 1], line.end) for line in drawing.lines if line.index] if drawing else []
    named = (points[0], tradeoff.chosen, points[-1])
    benchmark_results = zip(*(evaluation.results for evaluation in reported), strict=True)
    html = render(
        "blend.html",
        title="Blend of the start and the trained model",
        notes=notes,
        told=told(tradeoff),
        found=tradeoff,
        drawing=drawing,
        dots=[(f"{p.a:g}", end, p is tradeoff.chosen, p in named) for p, end in dots],
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "bottom": BOTTOM},
        lines=[(f"{p.a:g}", line(tradeoff, p), p is tradeoff.chosen) for p in points],
        sections=[
            (shortened(results[0].name, 80), called(results[0].headline), [
                score_row(shortened(e.model, 80), r.scores[r.headline])
                for e, r in zip(reported, results, strict=True)
            ])
            for results in benchmark_results
        ],
    )  # fmt: skip
    page = folder / PAGE
    page.write_text(html, encoding="utf-8")
    return page
