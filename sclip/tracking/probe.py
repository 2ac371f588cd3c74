"""Test whether a run of a config could be recorded in its MLflow store."""

from __future__ import annotations

from sclip.config import Config
from sclip.storage.masking import mask
from sclip.tracking.store import Store, local, patience, refusals, store_uri


def try_store(config: Config) -> str:
    """Write a run into the store and delete it again; return the store's masked address.

    Creates the experiment if missing, as a run would. Raises TrackingError.
    """
    storage = config.run.storage
    store = Store(store_uri(config, storage), config.tracking.experiment, "doctor", str(local(storage)))
    experiment = store.reach()
    with refusals(store.uri), patience():
        run = store.client.create_run(experiment, run_name="doctor")
        store.client.log_metric(run.info.run_id, "doctor", 1.0)
        store.client.delete_run(run.info.run_id)
    return mask(store.uri)
