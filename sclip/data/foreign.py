"""Read foreign texts: false captions, other wordings and scene graphs that a data set supplies with its captions.

sclip does not check their meaning. A field may hold:

- a text or a list of texts
- an object with a text under `negative`, `positive` or `caption`, and maybe its `graph`
- a mapping from captions, or parts of captions, to replacements: for "a dog runs", {"dog": "cat"} gives "a cat runs"

If a sample has several captions, the field must be a mapping, or a list with one entry per caption.

Published layouts with such fields: `neg_caption` of NegCLIP, `enhanced` of DeGLA, the four `.._aug_caption` of CE-CLIP,
the member `.neg_caption` of TripletCLIP; `swap_negatives`, `negative_components`, `paraphrased_caption` of CS-CLIP.
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
_LETTER = re.compile(r"\w")
_MOST_TEXTS = 1000
"""Maximum number of false captions, and of other wordings, of one caption. Further texts are ignored."""


class ForeignText(NamedTuple):
    """A false caption or another wording, with its graph if the data set supplies one."""

    text: str
    graph: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """The texts and the graph that the data set supplies with one caption."""

    negatives: tuple[ForeignText, ...] = ()
    positives: tuple[ForeignText, ...] = ()
    graph: dict[str, Any] | None = None
    """Graph of the caption itself, in the form of `SceneGraph.to_json`."""

    def to_bytes(self) -> bytes | None:
        """Return the texts and the graph as JSON; None if there are none."""
        if self == NOTHING:
            return None
        return json.dumps([self.negatives, self.positives, self.graph]).encode()

    @classmethod
    def from_bytes(cls, content: bytes | None) -> Foreign:
        """Return the value that `to_bytes` wrote."""
        if not content:
            return cls()
        *texts, graph = json.loads(content)
        negatives, positives = (tuple(ForeignText(*text) for text in entries) for entries in texts)
        return cls(negatives, positives, graph)


NOTHING = Foreign()


class Place(NamedTuple):
    """A caption and its index among all captions of its sample, including blank ones."""

    caption: str
    number: int


def read_foreign(
    fields: Mapping[str, Any], unread: Mapping[str, str], captions: Sequence[Place], count: int, data: DataConfig,
    counts: Counter[str],
) -> tuple[tuple[Foreign, ...], str]:  # fmt: skip
    """Return the texts that the data set supplies with each caption, and why fields are unreadable ("" if none is).

    Args:
        fields: the sample's .json fields or columns by name, and its members (bytes) by suffix, such as ".neg_caption".
        unread: why a member could not be read, by suffix.
        captions: the sample's clean captions that are not blank.
        count: number of the sample's captions, including blank ones.
        data: config that names the fields.
        counts: incremented for texts that are left out, for unreadable fields and for missing fields.
    """
    texts_by_key: dict[str, list[list[Any]]] = {}
    faults = []
    for key, names in data.foreign_fields.items():
        texts_by_key[key] = [[] for _ in captions]
        present = [name for name in names if name in unread or fields.get(name) is not None]
        if not present:
            counts[f"samples without {', '.join(names)}"] += 1
        for name in present:
            try:
                if name in unread:
                    raise ValueError(unread[name])
                value = _value(fields[name])
                read_texts: Sequence[list[Any]] = (
                    _graphs(value, captions) if key == "graphs_field" else _spread(value, captions, count)
                )
            except (ValueError, RecursionError) as error:
                faults.append(f"{name}: {error}")
                counts[f"samples with a {name} that cannot be read"] += 1
                continue
            for texts, added in zip(texts_by_key[key], read_texts, strict=True):
                texts.extend(added)
    foreign = []
    for index, (caption, _) in enumerate(captions):
        foreign_texts = {key: read_texts[index] for key, read_texts in texts_by_key.items()}
        negatives, positives = (
            _kept(caption, foreign_texts.get(f"{kind}_field", ()), kind, counts)
            for kind in ("negatives", "positives")
        )
        foreign.append(Foreign(negatives, positives, next(iter(foreign_texts.get("graphs_field", ())), None)))
    return tuple(foreign), "; ".join(faults)


def _value(value: Any) -> Any:
    return caption_lines(value) if isinstance(value, bytes) else value


def _spread(value: Any, captions: Sequence[Place], count: int) -> list[list[ForeignText]]:
    """Return the texts of a field for each caption. Raises ValueError if the value has none of the allowed forms."""
    if isinstance(value, dict) and not _is_text(value):
        entries = [value] * count
    elif count == 1:
        is_nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        entries = value if is_nested else [value]
    elif isinstance(value, list) and len(value) == count:
        entries = value
    else:
        held = f"{len(value)} entries" if isinstance(value, list) else "one text"
        raise ValueError(
            f"{held} for {count} captions; write a list with one entry per caption, or a mapping"
        )
    return [list(_texts(entries[number], caption)) for caption, number in captions]


def _texts(entry: Any, caption: str) -> Iterator[ForeignText]:
    if isinstance(entry, str):
        yield ForeignText(entry)
    elif isinstance(entry, list):
        for part in entry:
            if isinstance(part, list):
                raise ValueError("a list inside a caption's list")
            yield from _texts(part, caption)
    elif isinstance(entry, dict) and _is_text(entry):
        text = next(entry[key] for key in _TEXT_KEYS if isinstance(entry.get(key), str))
        yield ForeignText(text, _graph(entry["graph"], text) if entry.get("graph") else None)
    elif isinstance(entry, dict):
        for part, replacements in entry.items():
            yield from _with(caption, part, replacements)
    elif entry is not None:
        raise ValueError(f"{type(entry).__name__}, not text")


def _with(caption: str, part: str, replacements: Any) -> Iterator[ForeignText]:
    """Yield the caption with each of `replacements` in place of `part`, which may be the whole caption."""
    if isinstance(replacements, dict) and not _is_text(replacements):
        raise ValueError("a mapping inside a mapping")
    match = re.search(rf"(?<!\w){re.escape(part.strip())}(?!\w)", caption) if part.strip() else None
    for other in _texts(replacements, caption):
        if match and match.span() == (0, len(caption)):
            yield other
        elif match:
            yield ForeignText(caption[: match.start()] + other.text.strip() + caption[match.end() :])


def _is_text(entry: dict[str, Any]) -> bool:
    return any(isinstance(entry.get(key), str) for key in _TEXT_KEYS)


def _kept(
    caption: str, texts: Sequence[ForeignText], kind: str, counts: Counter[str]
) -> tuple[ForeignText, ...]:
    kept: dict[str, ForeignText] = {}
    for text, graph in texts:
        clean = cleaned(text)[0]
        if not _LETTER.search(clean):  # CE-CLIP's files write "###" for a missing text
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
    return text.encode(errors="replace").decode()  # JSON can encode lone surrogates


def _graphs(value: Any, captions: Sequence[Place]) -> list[list[dict[str, Any]]]:
    """Return for each caption a list with its graph; the list is empty if the field has no such graph."""
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
    """Return a checked graph in `SceneGraph.to_json`'s form. Raises ValueError if `value` is no graph of `caption`."""
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
        raise ValueError(f"not a graph as `sclip graph` writes it ({type(error).__name__} {error})") from None
    if not is_sound:
        raise ValueError(
            "a graph of another caption, with an unknown object, a blank word, or spans that are wrong or overlap"
        )
    return graph.to_json()


def _stands_apart(graph: SceneGraph) -> bool:
    """Return whether no objects or attributes overlap. To exchange overlapping words would garble a negative.

    An attribute may lie in the phrase of its own object ("red" in "a red car"), but not in the object's name ("car").
    """
    phrases = sorted(obj.phrase for obj in graph.objects)
    if any(one[1] > other[0] for one, other in pairwise(phrases)):
        return False
    for a in graph.attributes:
        for index, obj in enumerate(graph.objects):
            low, high = obj.span if index == a.object else obj.phrase
            if a.span[0] < high and low < a.span[1]:
                return False
    attributes = sorted({(a.span, a.attribute) for a in graph.attributes})
    return all(one[1] <= other[0] for (one, _), (other, _) in pairwise(attributes))
