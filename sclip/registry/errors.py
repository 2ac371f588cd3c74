"""How the registry refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow.exceptions import MlflowException

from sclip.tracking import first_cause

__all__ = ["RegistryError", "refusals"]


class RegistryError(RuntimeError):
    """What could not be registered, found or promoted; one line with the reason and what to do."""


@contextlib.contextmanager
def refusals(what: str, remedy: str = "") -> Iterator[None]:
    """Turn what MLflow raises into a RegistryError of one line: what was to be done, the first cause, the remedy."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{what}: {first_cause(error)}{remedy and f'; {remedy}'}") from error
