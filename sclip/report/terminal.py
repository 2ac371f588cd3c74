"""Draw scene graphs and negatives in the terminal: each object on a line, with its arrows below it.

    a small red circle to the left of a blue square
      circle  small, red
      └─ at the left of ─▶ square
      square  blue
      relation negative
          ‹a small red circle› to the left of ‹a blue square›
        ≠ ‹a blue square› to the left of ‹a small red circle›

Colors only repeat what the signs show, so that output to a pipe or a file loses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sclip.negatives import Negative
from sclip.report.layout import MOST_OBJECTS
from sclip.report.texts import Piece, compared, described, shortened
from sclip.scenegraph import SceneGraph

_STYLES = {
    "object": "bold cyan", "attribute": "yellow", "predicate": "italic magenta", "exchanged": "bold red",
    "quiet": "dim", "": "",
}  # fmt: skip
_MOST = 60
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Console(Console):
    """Console that lets the command handle a closed pipe. rich's console would exit with status 1."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling


def console() -> Console:
    """Return the console for drawing graphs."""
    return _Console(highlight=False, markup=False, emoji=False)


def show(graph: SceneGraph, negatives: Sequence[Negative] | None, console: Console) -> None:
    """Draw one caption with its graph and its negatives; `negatives=None` means that they were not computed."""
    console.print(_text(described(graph)) or Text("(empty caption)", _STYLES["quiet"]))
    for line in _graph(graph):
        console.print(_indented(line, 2))
    for negative in negatives or ():
        before, after = compared(graph.caption, negative)
        console.print(Text(f"  {negative.kind} negative", _STYLES["quiet"]))
        for sign, pieces in (("  ", before), ("≠ ", after)):
            console.print(_indented(Text(sign) + _text(pieces), 4))
    if negatives is not None and not negatives:
        console.print(Text("  no negative", _STYLES["quiet"]))
    console.print()


def _indented(line: Text, columns: int) -> Padding:
    return Padding(line, (0, 0, 0, columns), expand=False)


def _graph(graph: SceneGraph) -> list[Text]:
    if not graph.objects:
        return [Text("no objects", _STYLES["quiet"])]
    names = _names(graph)
    lines = []
    for index, name in enumerate(names):
        attributes = [shortened(a.attribute, _MOST) for a in graph.attributes if a.object == index]
        lines.append(Text.assemble((name, _STYLES["object"]), "  ", (", ".join(attributes), "yellow")))
        ends: dict[str, list[str]] = {}
        for relation in graph.relations:
            if relation.subject == index and relation.object < len(names):
                ends.setdefault(shortened(relation.predicate, _MOST), []).append(names[relation.object])
        for number, (predicate, objects) in enumerate(ends.items(), 1):
            branch = "└─ " if number == len(ends) else "├─ "
            lines.append(
                Text.assemble(branch, (predicate, _STYLES["predicate"]), " ─▶ ", (", ".join(objects), "cyan"))
            )
    if len(names) < len(graph.objects):
        lines.append(Text(f"and {len(graph.objects) - len(names)} more objects", _STYLES["quiet"]))
    for line in lines:
        line.rstrip()
    return lines


def _names(graph: SceneGraph) -> list[str]:
    """Return the label of each object: two men become man¹ and man²."""
    names = [shortened(obj.name, _MOST) for obj in graph.objects[:MOST_OBJECTS]]
    counts, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        if counts[name] > 1:
            names[index] = name + str(seen[name]).translate(_SUPERSCRIPTS)
    return names


def _text(pieces: Sequence[Piece]) -> Text:
    text = Text()
    for piece in pieces:
        shown = f"‹{piece.text}›" if piece.role == "exchanged" else piece.text
        text.append(shown, _STYLES[piece.role])
    return text
