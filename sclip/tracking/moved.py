"""Correct the paths recorded in a SQLite MLflow store that was moved or copied together with its artifacts.

MLflow records only absolute paths. After a move, model versions would fail with "no artifact", and new runs would write
into the old folder. If `follow` finds the artifacts next to the moved store, it corrects the recorded paths in one
transaction. Servers and other databases stay as they are.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection

from sclip.storage.masking import mask
from sclip.storage.paths import shown

ARTIFACTS = "mlartifacts"
"""Folder next to a store that holds the artifacts of its experiments."""

_COLUMNS = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
_BELOW = "({0} = :old OR substr({0}, 1, :n + 1) = :old || '/')"

_log = logging.getLogger("sclip.tracking")


class TrackingError(RuntimeError):
    """Error for a store or tracker that cannot be used; its message is one line that says what to do."""


def follow(uri: str, root: str = "") -> None:
    """Correct the paths of artifact folders in a moved SQLite store; do nothing for other stores. No file is moved.

    A recorded folder is replaced by the folder of the same name next to the store, if the new folder holds recorded
    artifacts. The recorded folder `root` is always replaced.

    Raises TrackingError if a recorded folder has files that the new folder lacks, or if the store cannot be changed.
    """
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.is_file():
        return
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.begin() as store:
            if {table for table, _ in _COLUMNS} - set(sqlalchemy.inspect(store).get_table_names()):
                return  # empty, or from another MLflow version; MLflow reports that itself
            for old in _roots(store):
                new = file.absolute().parent / old.name
                if same_folder(old, new) or not (str(old) == root or _has_artifacts(store, old, new)):
                    continue
                rows = _change(store, old, new, mask(uri))
                _log.warning(
                    "MLflow's store %s was moved: %d recorded paths now lead to %s instead of %s",
                    shown(file), rows, shown(new), shown(old),
                )  # fmt: skip
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {getattr(error, 'orig', None) or error}"
        ) from error
    finally:
        engine.dispose()


def same_folder(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths lead to the same folder, which need not exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def _roots(store: Connection) -> list[Path]:
    rows = store.execute(sqlalchemy.text("SELECT DISTINCT artifact_location FROM experiments"))
    return [Path(folder) for (folder,) in rows if folder and folder.startswith("/")]


def _has_artifacts(store: Connection, old: Path, new: Path) -> bool:
    """Return whether recorded artifacts exist in `new`; raise TrackingError if some files exist only in `old`."""
    paths = {
        Path(path).relative_to(old)
        for table, column in _COLUMNS
        for (path,) in store.execute(
            sqlalchemy.text(f"SELECT {column} FROM {table} WHERE {_BELOW.format(column)}"),
            {"old": str(old), "n": len(str(old))},
        )
        if Path(path) != old
    }
    if not any((new / path).exists() for path in paths):
        return False
    for file in (file for path in paths for file in (old / path).rglob("*") if file.is_file()):
        if not (new / file.relative_to(old)).exists():
            raise TrackingError(
                f"MLflow's store in {shown(new.parent)} has artifacts in two folders, and only the old one has "
                f"{shown(file)}; copy them: cp -rn {shown(f'{old}/.')} {shown(new)}"
            )
    return True


def _change(store: Connection, old: Path, new: Path, uri: str) -> int:
    values = {"old": str(old), "new": str(new), "n": len(str(old))}
    rows = 0
    try:
        for table, column in _COLUMNS:
            change = f"UPDATE {table} SET {column} = :new || substr({column}, :n + 1) WHERE {_BELOW.format(column)}"
            rows += store.execute(sqlalchemy.text(change), values).rowcount
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(
            f"MLflow store {uri} was moved with its artifacts from {shown(old)} to {shown(new)}, but its recorded "
            f"paths cannot be changed ({getattr(error, 'orig', None) or error}); make it writable once, or copy it"
        ) from error
    return rows
