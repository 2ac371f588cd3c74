"""Create the destinations that get a run's metrics in addition to MLflow (`tracking.also`)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence

from sclip.tracking.journal import Journal
from sclip.tracking.moved import TrackingError
from sclip.tracking.sender import Destination

EVENT_FILE = "tensorboard/events.out.tfevents.sclip"
"""Path of the event file in a run's folder. TensorBoard recognizes event files by `tfevents` in the name."""


def check_installed(also: Sequence[str]) -> None:
    """Raise TrackingError with the remedy, in one line, if `tracking.also` needs a package that is not installed."""
    try:
        if "wandb" in also:
            importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError as error:
        raise TrackingError(
            f"tracking.also={list(also)}: wandb is not installed; pip install 'sclip[trackers]', or leave it out"
        ) from error


def destinations(also: Sequence[str], journal: Journal, project: str) -> Iterator[Destination]:
    """Yield one destination for each name in `also`; import a library only if its destination needs it."""
    if "tensorboard" in also:
        from sclip.tracking.to_tensorboard import TensorBoard

        yield TensorBoard(journal, EVENT_FILE)
    if "wandb" in also:
        from sclip.tracking.to_wandb import WandB

        yield WandB(journal, project)
