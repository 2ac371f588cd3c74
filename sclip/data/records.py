"""One record of an annotation: the graph and the negatives of a caption, to bytes and back.

Apart from `sclip.data.annotation`, because this needs the graph's types and with them spaCy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sclip.data.annotation import AnnotationError, dumps
from sclip.negatives import Negative, draw
from sclip.scenegraph import SceneGraph

__all__ = ["read_record", "write_record"]


def write_record(graph: SceneGraph, negatives: Sequence[Negative]) -> bytes:
    """Return the record of a caption, given its graph and the negatives that are drawn from."""
    return dumps({"graph": graph.to_json(), "negatives": [negative.to_json() for negative in negatives]})


def read_record(record: bytes, caption: str) -> tuple[SceneGraph, list[Negative]]:
    """Return the graph and the negatives that a record of this caption holds.

    Raises AnnotationError where it is malformed, or of another caption.
    """
    try:
        value = json.loads(record)
        graph = SceneGraph.from_json(value["graph"])
        negatives = [Negative.from_json(entry) for entry in value["negatives"]]
        graphs = [graph, *(negative.graph for negative in negatives)]
        words = [word for g in graphs for triple in g.triples() for word in triple]
        words += [text for negative in negatives for text in (negative.caption, negative.kind)]
        "".join(words).encode()  # raises where one is no text, or none that a tokenizer takes
        draw(negatives, seed=0, epoch=0, key="")  # raises where what it weighs is no weight
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise AnnotationError(f"annotation is not readable: {error}") from error
    if graph.caption != caption:
        raise AnnotationError("annotation is of another caption (data.caption_field)")
    return graph, negatives
