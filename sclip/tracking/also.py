"""Make the destinations, beside MLflow, that `tracking.also` names for a run's metrics."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence

from sclip.tracking.journal import Journal
from sclip.tracking.moved import TrackingError
from sclip.tracking.sender import Destination

EVENT_FILE = "tensorboard/events.out.tfevents.sclip"
"""TensorBoard's file below the folder of a run; TensorBoard finds it by the part before the last dot."""


def check_installed(also: Sequence[str]) -> None:
    """Raise TrackingError, one line with the remedy, if a package is missing that `tracking.also` needs."""
    try:
        if "wandb" in also:
            importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError as error:
        raise TrackingError(
            f"tracking.also={list(also)}: wandb is not installed; pip install 'sclip[trackers]', or leave it out"
        ) from error


def destinations(also: Sequence[str], journal: Journal, project: str) -> Iterator[Destination]:
    """Yield each destination once; only those named import their library."""
    if "tensorboard" in also:
        from sclip.tracking.to_tensorboard import TensorBoard

        yield TensorBoard(journal, EVENT_FILE)
    if "wandb" in also:
        from sclip.tracking.to_wandb import WandB

        yield WandB(journal, project)
