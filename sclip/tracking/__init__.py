"""Record a run in MLflow, also after outages: config, metrics, tags, datasets and artifacts.

    Tracker -> Journal (tracking.jsonl in the run's folder) -> Sender (a thread) -> MLflow
                                                            -> Sender (a thread) -> TensorBoard's event file
                                                            -> Sender (a thread) -> a process -> Weights & Biases

Every event is on disk before it is sent, so neither a silent server nor a crash loses a metric, and training never
waits. Events that were not sent go with the run's next start, or by `sclip sync RUN`. `tracking.also` names what gets
the metrics beside MLflow.
"""

from sclip.tracking.also import check_installed
from sclip.tracking.journal import history
from sclip.tracking.moved import TrackingError, follow
from sclip.tracking.opening import open_parent, open_recorded, open_run
from sclip.tracking.store import RUN_NAME_TAG, first_cause, settings, store_uri, try_store
from sclip.tracking.tracker import Tracker

__all__ = ["RUN_NAME_TAG", "Tracker", "TrackingError", "first_cause", "follow", "history", "settings"]
__all__ += ["check_installed", "open_parent", "open_recorded", "open_run", "store_uri", "try_store"]
