"""MLflow stores on SQLite: their tables take seconds to make, so they are made once and written out for each test."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from pathlib import Path

from mlflow import MlflowClient


def empty_store(folder: Path) -> str:
    """Write a store without runs where a run's storage has it; return its address."""
    (folder / "mlflow.db").write_bytes(_tables())
    return f"sqlite:///{folder}/mlflow.db"


@functools.cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        with sqlite3.connect(f"{folder}/mlflow.db") as made:
            return made.serialize()
