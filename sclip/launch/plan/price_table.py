"""Read the table of hourly prices per node type from a file.

currency: USD                            optional
gpu-workers: 12.29                       price of one node of this type per hour
cpu-workers: {price: 0.26, spot: true}   the keys are the names of the cluster's node types
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from sclip.config import ConfigError
from sclip.config.loader import read_yaml


@dataclass(frozen=True)
class Price:
    """Price of one node per hour."""

    price: float
    spot: bool = False


@dataclass(frozen=True)
class Prices:
    """Prices by node type."""

    of: Mapping[str, Price]
    currency: str = ""

    def hourly(self, nodes: Mapping[str, int]) -> float:
        """Return the cost per hour of `nodes`, the number of nodes by type; types without a price count as 0."""
        return sum(count * self.of[name].price for name, count in nodes.items() if name in self.of)

    def missing(self, nodes: Mapping[str, int]) -> list[str]:
        """Return the types of `nodes` that have no price."""
        return sorted(name for name, count in nodes.items() if count and name not in self.of)


def read(path: Path) -> Prices:
    """Return the table in a YAML or JSON file. Raises ConfigError, which names the file and the wrong entry."""
    tree = read_yaml(path)
    currency = tree.pop("currency", "")
    return Prices({str(name): _price(path, name, value) for name, value in tree.items()}, str(currency))


def _price(path: Path, name: Any, value: Any) -> Price:
    entry = value if isinstance(value, dict) else {"price": value}
    price, spot = entry.get("price"), entry.get("spot", False)
    known = isinstance(spot, bool) and not entry.keys() - {"price", "spot"}
    if known and isinstance(price, int | float) and not isinstance(price, bool) and 0 <= price < inf:
        return Price(float(price), spot)
    raise ConfigError(f"{path}: {name}={value!r}: write a price per hour, or {{price: 0.26, spot: true}}")
