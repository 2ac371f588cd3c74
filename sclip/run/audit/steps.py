"""Find the first step in which the ledger's rows differ from the run's order.

The order is computed anew from the seed. The ledger has the rows that each step trained on or filtered. Order and
ledger are read side by side, so that memory holds only the rows of visits (passes over one shard) in progress.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import NamedTuple

from sclip import seeding
from sclip.data.order import Part, mixed
from sclip.data.schedule import Visit
from sclip.run.audit.run_files import ExpectedVisits, LedgerRows

__all__ = ["Difference", "Row", "first_difference"]

Row = tuple[Visit, int]
"""A visit (one pass over one shard), and the index of a row in the shard."""


class Difference(NamedTuple):
    """A step in which the rows of the ledger differ from those of the run's order."""

    step: int
    lacks: list[Row]
    """Rows that the order has in this step and the ledger lacks, without quarantined rows."""
    extra: list[Row]
    """Rows that the ledger has in this step more often than the order."""


def first_difference(
    expected: ExpectedVisits, groups: Mapping[str, int], ledger: Iterable[LedgerRows], set_aside: Set[Row]
) -> Difference | None:
    """Return the first step in which the ledger's rows differ from the order's rows; None if no step differs.

    `groups` has the number of readable samples of each shard; shards without a number are not compared. `ledger` holds
    rows that were trained on or filtered, in the order of the steps. `ledger` may lack quarantined rows (`set_aside`).
    """
    order_steps = _steps_of_order(expected, groups)
    ledger_steps = chain(_steps_of_ledger(expected, groups, ledger), [(math.inf, Counter[Row]())])
    # After the newest checkpoint of an unfinished run, quarantine.jsonl may lack rows.
    last_settled = math.inf if expected.complete else expected.checkpoint
    step, rows = next(ledger_steps)
    for number, in_order in order_steps:
        if step < number:
            break
        in_ledger = Counter[Row]()
        if step == number:
            in_ledger = rows
            step, rows = next(ledger_steps)
        elif step == math.inf and number > last_settled:
            return None
        lacks = in_order - in_ledger.keys() - set_aside if number <= last_settled else set()
        extra = [row for row, times in in_ledger.items() if times > (row in in_order)]
        if lacks or extra:
            return Difference(number, sorted(lacks), sorted(extra))
    return None if step == math.inf else Difference(int(step), [], sorted(rows))


def _steps_of_ledger(
    expected: ExpectedVisits, groups: Mapping[str, int], ledger: Iterable[LedgerRows]
) -> Iterator[tuple[int, Counter[Row]]]:
    for step, lines in groupby(ledger, key=attrgetter("step")):
        rows = Counter[Row]()
        for line in lines:
            if line.visit not in expected.visits or expected.url(line.visit) in groups:
                rows.update((line.visit, row) for row in line.rows)
        if rows:
            yield step, rows


def _steps_of_order(expected: ExpectedVisits, groups: Mapping[str, int]) -> Iterator[tuple[int, set[Row]]]:
    """Yield each training step's number, from 1, and the rows that the run's order has in this step."""
    more = {url: groups[url] - count for url, count in expected.samples.items() if groups.get(url, 0) > count}
    order = expected.order
    if more:  # the last steps have the rows beyond the recorded counts
        visits = ((entry, order.schedule.visit(entry)) for entry in range(len(order.schedule)))
        beyond = {entry: more[url] for entry, visit in visits if (url := expected.url(visit)) in more}
        order = dataclasses.replace(order, beyond=beyond)
    opened: dict[int, _OpenVisit] = {}
    for step, parts in order.rows():
        rows = set[Row]()
        for part in parts:
            visit = opened.pop(part.entry, None) or _OpenVisit(expected, groups, part.entry)
            rows |= visit.take(part)
            if visit.is_open:
                opened[part.entry] = visit
        yield step + 1, rows


class _OpenVisit:
    """Rows of one visit that no step has taken yet, in the reader's shuffled order."""

    def __init__(self, expected: ExpectedVisits, groups: Mapping[str, int], entry: int) -> None:
        order = expected.order
        self._visit = order.schedule.visit(entry)
        shard = expected.shards[self._visit.source][self._visit.shard]
        self._recorded = order.count(entry)
        rng = seeding.generator("mix", order.schedule.seed, self._visit.pass_, shard.name)
        self._rows = mixed(range(groups.get(shard.url, 0)), expected.shuffle_buffer, rng)
        self._taken = 0

    @property
    def is_open(self) -> bool:
        """Whether rows within the shard's recorded count are left."""
        return self._taken < self._recorded

    def take(self, part: Part) -> set[Row]:
        """Return the rows of `part`, the next part of the visit; fewer if the shard is shorter than recorded."""
        rows = islice(self._rows, part.start - self._taken, part.stop - self._taken)
        self._taken = part.stop
        return {(self._visit, row) for row in rows}
