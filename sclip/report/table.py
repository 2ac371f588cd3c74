"""Print the statistics of a corpus, and why samples are set aside, as short tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sclip.report.corpus import SHARES, CorpusStatistics
from sclip.report.texts import shortened

_WIDTH = 24
_MOST_WORDS = 10


def show_statistics(statistics: CorpusStatistics, console: Console) -> None:
    """Print the shares and means over captions, and the most frequent words."""
    captions = Table(box=box.SIMPLE_HEAD)
    captions.add_column(f"{statistics.captions:,} captions", no_wrap=True)
    captions.add_column("", justify="right", no_wrap=True)
    captions.add_column("", no_wrap=True)
    for name, label in SHARES.items():
        share = statistics.share(name)
        captions.add_row(label, f"{100 * share:.1f} %", _bar(share))
    for name in ("objects", "attributes", "relations", "negatives"):
        captions.add_row(f"{name} a caption", f"{statistics.mean(name):.2f}", "")
    console.print(captions)
    words = Table(box=box.SIMPLE_HEAD)
    kinds = (statistics.object_names, statistics.attribute_words, statistics.predicates)
    for title in ("objects", "attributes", "predicates"):
        words.add_column(title, no_wrap=True)
        words.add_column("", justify="right", no_wrap=True)
    lists = [kind.most(_MOST_WORDS) for kind in kinds]
    for rank in range(max(map(len, lists))):
        entries = [ranking[rank] if rank < len(ranking) else None for ranking in lists]
        words.add_row(
            *(
                cell
                for entry in entries
                for cell in ((Text(shortened(entry[0], 20)), f"{entry[1]:,}") if entry else ("", ""))
            )
        )
    console.print(words)


def show_findings(reasons: Sequence[tuple[str, int, Mapping[str, Any]]], console: Console) -> None:
    """Print why samples are set aside. `reasons` holds (reason, number of samples, shard and key of one of them)."""
    if not reasons:
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("set aside because", overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("for example", overflow="fold")
    for name, count, example in reasons:
        shard = str(example["shard"]).rpartition("/")[2]
        location = shortened(f"{shard}: {example['key'] or 'the rest of the shard'}", 60)
        table.add_row(Text(shortened(name, 120)), f"{count:,}", Text(location))
    console.print(table)


def _bar(share: float) -> str:
    filled = round(_WIDTH * share)
    return "█" * filled + "░" * (_WIDTH - filled)
