"""Read what came with captions: false ones, other wordings and graphs, by a person or a language model.

They are used as they are (method, 9). A field may hold a text, a list of texts, an object with a text (`negative`,
`positive` or `caption`, and perhaps its `graph`), or a mapping. The keys of a mapping are captions, or parts of them
that its values replace. Where a sample has several captions, the field is a mapping, or a list with an entry for each.

The published layouts are such fields: `neg_caption` of NegCLIP, `enhanced` of DeGLA, the four `.._aug_caption` of
CE-CLIP, the member `.neg_caption` of TripletCLIP, `swap_negatives`, `negative_components` and `paraphrased_caption` of
CS-CLIP.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from sclip.config import DataConfig
from sclip.data.caption_text import MAX_CAPTION_BYTES, caption_lines, cleaned
from sclip.scenegraph import SceneGraph

_TEXT_KEYS = ("negative", "positive", "caption")
"""Of an object that is one text."""
_LETTER = re.compile(r"\w")
_MOST_TEXTS = 1000
"""False captions, or other wordings, of one caption."""


class ForeignText(NamedTuple):
    """A false caption or another wording, and its graph where that came too."""

    text: str
    graph: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """What came with one caption."""

    negatives: tuple[ForeignText, ...] = ()
    positives: tuple[ForeignText, ...] = ()
    graph: dict[str, Any] | None = None
    """`SceneGraph.to_json`."""

    def to_bytes(self) -> bytes | None:
        """Return it as JSON; None where nothing came."""
        if self == NOTHING:
            return None
        return json.dumps([self.negatives, self.positives, self.graph]).encode()

    @classmethod
    def from_bytes(cls, content: bytes | None) -> Foreign:
        """Return what `to_bytes` wrote."""
        if not content:
            return cls()
        *texts, graph = json.loads(content)
        negatives, positives = (tuple(ForeignText(*text) for text in of) for of in texts)
        return cls(negatives, positives, graph)


NOTHING = Foreign()


class Place(NamedTuple):
    """A caption, and which one it is of all that the fields of its sample hold, blank ones among them."""

    caption: str
    number: int


def read_foreign(
    fields: Mapping[str, Any], unread: Mapping[str, str], captions: Sequence[Place], count: int, data: DataConfig,
    counts: Counter[str],
) -> tuple[tuple[Foreign, ...], str]:  # fmt: skip
    """Return what came with each caption, and why a field cannot be read; without a fault an empty text.

    Args:
        fields: of the sample: its .json or its columns, and members by their suffix with a dot before it (bytes).
        unread: why a member could not be read, by its suffix as in `fields`.
        captions: clean ones.
        count: number of captions, with the blank ones.
        data: names the fields.
        counts: counted up by what is left out, and by the fields that the sample has not.
    """
    found: dict[str, list[list[Any]]] = {}
    faults = []
    for key, names in data.foreign_fields.items():
        found[key] = [[] for _ in captions]
        there = [name for name in names if name in unread or fields.get(name) is not None]
        if not there:
            counts[f"samples without {', '.join(names)}"] += 1
        for name in there:
            try:
                if name in unread:
                    raise ValueError(unread[name])
                value = _value(fields[name])
                read: Sequence[list[Any]] = (
                    _graphs(value, captions) if key == "graphs_field" else _spread(value, captions, count)
                )
            except (ValueError, RecursionError) as error:
                faults.append(f"{name}: {error}")
                counts[f"samples with a {name} that cannot be read"] += 1
                continue
            for held, more in zip(found[key], read, strict=True):
                held.extend(more)
    foreign = []
    for place, (caption, _) in enumerate(captions):
        of_caption = {key: read[place] for key, read in found.items()}
        negatives, positives = (
            _kept(caption, of_caption.get(f"{kind}_field", ()), kind, counts)
            for kind in ("negatives", "positives")
        )
        foreign.append(Foreign(negatives, positives, next(iter(of_caption.get("graphs_field", ())), None)))
    return tuple(foreign), "; ".join(faults)


def _value(value: Any) -> Any:
    return caption_lines(value) if isinstance(value, bytes) else value


def _spread(value: Any, captions: Sequence[Place], count: int) -> list[list[ForeignText]]:
    """Return the texts of a field for each caption. Raises ValueError where the value has none of the forms."""
    if isinstance(value, dict) and not _is_text(value):
        entries = [value] * count
    elif count == 1:
        is_nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        entries = value if is_nested else [value]
    elif isinstance(value, list) and len(value) == count:
        entries = value
    else:
        held = f"{len(value)} entries" if isinstance(value, list) else "one text"
        raise ValueError(f"{held} for {count} captions: it needs a list with an entry for each, or a mapping")
    return [list(_texts(entries[number], caption)) for caption, number in captions]


def _texts(entry: Any, caption: str) -> Iterator[ForeignText]:
    """Yield the texts that an entry has for a caption, as they are."""
    if isinstance(entry, str):
        yield ForeignText(entry)
    elif isinstance(entry, list):
        for part in entry:
            if isinstance(part, list):
                raise ValueError("a list in the list of a caption")
            yield from _texts(part, caption)
    elif isinstance(entry, dict) and _is_text(entry):
        text = next(entry[key] for key in _TEXT_KEYS if isinstance(entry.get(key), str))
        yield ForeignText(text, _graph(entry["graph"], text) if entry.get("graph") else None)
    elif isinstance(entry, dict):
        for part, others in entry.items():
            yield from _with(caption, part, others)
    elif entry is not None:
        raise ValueError(f"{type(entry).__name__}, not text")


def _with(caption: str, part: str, others: Any) -> Iterator[ForeignText]:
    """Yield the caption with each other text in the place of a part, which may be all of it."""
    if isinstance(others, dict) and not _is_text(others):
        raise ValueError("a mapping in a mapping")
    found = re.search(rf"(?<!\w){re.escape(part.strip())}(?!\w)", caption) if part.strip() else None
    for other in _texts(others, caption):
        if found and found.span() == (0, len(caption)):
            yield other
        elif found:
            yield ForeignText(caption[: found.start()] + other.text.strip() + caption[found.end() :])


def _is_text(entry: dict[str, Any]) -> bool:
    return any(isinstance(entry.get(key), str) for key in _TEXT_KEYS)


def _kept(
    caption: str, texts: Sequence[ForeignText], kind: str, counts: Counter[str]
) -> tuple[ForeignText, ...]:
    """Return the texts, clean and each once; count those that are empty or their caption itself."""
    kept: dict[str, ForeignText] = {}
    for text, graph in texts:
        clean = cleaned(text)[0]
        if not _LETTER.search(clean):  # "###" stands for none in CE-CLIP's files
            counts[f"empty {kind}"] += 1
        elif clean.casefold() == caption.casefold():
            counts[f"{kind} equal to their caption"] += 1
        elif len(clean.encode(errors="replace")) > MAX_CAPTION_BYTES or clean != _storable(clean):
            counts[f"{kind} that are too long or not UTF-8"] += 1
        elif len(kept) < _MOST_TEXTS:
            kept.setdefault(
                clean.casefold(), ForeignText(clean, graph if graph and graph["caption"] == clean else None)
            )
    return tuple(kept.values())


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()  # JSON can spell lone surrogates


def _graphs(value: Any, captions: Sequence[Place]) -> list[list[dict[str, Any]]]:
    """Return the graph of each caption, among those of a sample, by the caption that it names."""
    graphs = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and "objects" not in value:
        graphs = list(value.values())
    by_caption: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        if graph is not None:
            checked = _graph(graph, graph.get("caption") if isinstance(graph, dict) else "")
            by_caption.setdefault(checked["caption"], checked)
    return [[by_caption[caption]] if caption in by_caption else [] for caption, _ in captions]


def _graph(value: Any, caption: Any) -> dict[str, Any]:
    """Return a graph of a caption in `SceneGraph.to_json`'s form. Raises ValueError where it has another."""
    try:
        graph = SceneGraph.from_json(value)
        numbers = [a.object for a in graph.attributes]
        numbers += [index for r in graph.relations for index in (r.subject, r.object)]
        words = [o.name for o in graph.objects] + [a.attribute for a in graph.attributes]
        words += [r.predicate for r in graph.relations]
        spans = [span for o in graph.objects for span in (o.span, o.phrase)]
        spans += [a.span for a in graph.attributes] + [r.span for r in graph.relations]
        is_sound = (
            graph.caption == caption
            and all(type(number) is int and 0 <= number < len(graph.objects) for number in numbers)
            and all(isinstance(word, str) and word.strip() and word == _storable(word) for word in words)
            and all(
                len(s) == 2 and set(map(type, s)) == {int} and 0 <= s[0] <= s[1] <= len(caption)
                for s in spans
            )
            and all(o.phrase[0] <= o.span[0] < o.span[1] <= o.phrase[1] for o in graph.objects)
            and all(a.span[0] < a.span[1] for a in graph.attributes)
            and _stands_apart(graph)
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"a graph of another form than `sclip graph` writes ({type(error).__name__} {error})"
        ) from None
    if not is_sound:
        raise ValueError(
            "a graph whose words do not stand in its caption each in its own place, or of other objects than it has"
        )
    return graph.to_json()


def _stands_apart(graph: SceneGraph) -> bool:
    """Whether phrases share no character, and attributes none with a name, with another's phrase or with each other.

    One word may be said of several objects. Of other graphs our negatives would exchange words with themselves.
    """
    phrases = sorted(obj.phrase for obj in graph.objects)
    if any(one[1] > other[0] for one, other in pairwise(phrases)):
        return False
    for a in graph.attributes:
        for index, obj in enumerate(graph.objects):
            low, high = obj.span if index == a.object else obj.phrase
            if a.span[0] < high and low < a.span[1]:
                return False
    said = sorted({(a.span, a.attribute) for a in graph.attributes})
    return all(one[1] <= other[0] for (one, _), (other, _) in pairwise(said))
