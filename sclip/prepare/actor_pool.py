"""Run a pool of Ray Data CPU actors over shards: one task per shard, each result yielded when it is ready."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray.data

from sclip.config import ConfigError


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Number of actors in a pool, and the CPUs that each of them reserves."""

    most: int = 0
    """Maximum number of actors; 0 means as many as the cluster's CPUs allow."""
    cpus: float = 1.0

    def run(
        self, actor: type, arguments: Sequence[Any], shards: Sequence[str], cpus: float
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows that the actors return, in any order. The connected cluster has `cpus` CPUs.

        `actor(*arguments)` makes an actor: a callable that takes an Arrow table with the column `shard` and returns a
        table. Raises ConfigError if one actor reserves more CPUs than the cluster has.
        """
        if self.cpus > cpus + 1e-6:
            raise ConfigError(f"--actor-cpus={self.cpus:g}: the cluster has {cpus:g} CPUs; lower it")
        most = self.most or max(1, math.floor(cpus / self.cpus + 1e-6))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # only sclip prints progress
        rows = ray.data.from_items([{"shard": url} for url in shards], override_num_blocks=len(shards))
        results = rows.map_batches(
            actor,
            fn_constructor_args=tuple(arguments),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=self.cpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(shards))),
        )
        yield from results.iter_rows()
