"""An MLflow store on SQLite that was moved or copied with its artifacts: its records follow it.

MLflow records absolute paths only: of a moved store, versions would load with "no artifact", and a new run would write
into the old folder. A store goes in; where its artifacts lie beside it and not where they are recorded, the records
are changed in one transaction, which one line says. Other databases and servers are left alone, as is what was
never beside the store.
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
"""Folder beside a store that its experiments' artifacts go to."""

_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Where MLflow's tables hold a place of artifacts."""

_log = logging.getLogger("sclip.tracking")


class TrackingError(RuntimeError):
    """A store that cannot be used; one line with its address and what to do."""


def follow(uri: str, root: str = "") -> None:
    """Change the recorded places of a SQLite store's artifacts where they lie beside it now.

    Args:
        uri: the store; nothing is done for a server, another database or a file that is not there.
        root: recorded root of an experiment that counts as moved although nothing of it lies beside the store.

    Raises TrackingError, one line with both places, where the recorded one has files that the store's own lacks, or
    the store cannot be changed.
    """
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.is_file():
        return
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.begin() as store:
            tables = sqlalchemy.inspect(store).get_table_names()
            for old in _roots(store) if "experiments" in tables else []:
                new = file.absolute().parent / old.name
                if same_folder(old, new) or not (str(old) == root or _is_beside(store, old, new)):
                    continue
                rows = _changed(store, old, new, mask(uri))
                _log.warning(
                    "MLflow's store %s was moved: %d recorded places are in %s now, no longer in %s",
                    shown(file), rows, shown(new), shown(old),
                )  # fmt: skip
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(
            f"MLflow store {mask(uri)} cannot be used: {getattr(error, 'orig', None) or error}"
        ) from error
    finally:
        engine.dispose()


def same_folder(one: str | Path, other: str | Path) -> bool:
    """Tell whether two paths name one folder, which need not be there."""
    return os.path.realpath(one) == os.path.realpath(other)


def _roots(store: Connection) -> list[Path]:
    """Return the folders of this machine that experiments keep artifacts in."""
    found = store.execute(sqlalchemy.text("SELECT DISTINCT artifact_location FROM experiments"))
    return [Path(place) for (place,) in found if place and place.startswith("/")]


def _is_beside(store: Connection, old: Path, new: Path) -> bool:
    """Tell whether recorded artifacts lie in `new`; raise TrackingError where they are only in part."""
    places = [place.relative_to(old) for place in _recorded(store, old) if place != old]
    if not any((new / place).exists() for place in places):
        return False
    for place in places:
        for file in (file for file in (old / place).rglob("*") if file.is_file()):
            if not (new / file.relative_to(old)).exists():
                raise TrackingError(
                    f"MLflow's store in {shown(new.parent)} has artifacts in two places, and "
                    f"{shown(file)} only in the old one; bring them together: "
                    f"cp -rn {shown(f'{old}/.')} {shown(new)}"
                )
    return True


def _recorded(store: Connection, root: Path) -> set[Path]:
    return {
        Path(place)
        for table, column in _known(store)
        for (place,) in store.execute(
            sqlalchemy.text(f"SELECT DISTINCT {column} FROM {table} WHERE {_BELOW.format(column)}"),
            {"old": str(root), "n": len(str(root))},
        )
    }


def _changed(store: Connection, old: Path, new: Path, uri: str) -> int:
    """Put `new` in the place of `old` at the start of every recorded place; return in how many."""
    values = {"old": str(old), "new": str(new), "n": len(str(old))}
    rows = 0
    try:
        for table, column in _known(store):
            change = f"UPDATE {table} SET {column} = :new || substr({column}, :n + 1) WHERE {_BELOW.format(column)}"
            rows += store.execute(sqlalchemy.text(change), values).rowcount
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(
            f"MLflow store {uri} was moved with its artifacts: recorded in {shown(old)}, they lie in "
            f"{shown(new)}, and it cannot be changed ({getattr(error, 'orig', None) or error}); make it "
            "writable once, or a copy of it"
        ) from error
    return rows


_BELOW = "({0} = :old OR substr({0}, 1, :n + 1) = :old || '/')"


def _known(store: Connection) -> list[tuple[str, str]]:
    """Return the columns of `_COLUMNS` that a store of this version of MLflow has."""
    inspector = sqlalchemy.inspect(store)
    tables = set(inspector.get_table_names()) & _COLUMNS.keys()
    return [
        (table, column["name"])
        for table in sorted(tables)
        for column in inspector.get_columns(table)
        if column["name"] in _COLUMNS[table]
    ]
