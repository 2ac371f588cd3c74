"""Empty MLflow stores on SQLite. Creating the tables takes seconds, so each test gets a copy."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from pathlib import Path

from mlflow import MlflowClient


def empty_store(folder: Path) -> str:
    """Write a store without runs to `folder`, under the name that a run's storage uses; return its URI."""
    (folder / "mlflow.db").write_bytes(_tables())
    return f"sqlite:///{folder}/mlflow.db"


@functools.cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        with sqlite3.connect(f"{folder}/mlflow.db") as connection:
            return connection.serialize()
