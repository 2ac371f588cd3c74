"""Record a run in MLflow, even across outages: config, metrics, tags, datasets and artifacts.

    Tracker -> Journal (tracking.jsonl in the run's folder) -> Sender (a thread) -> MLflow
                                                            -> Sender (a thread) -> TensorBoard's event file
                                                            -> Sender (a thread) -> a process -> Weights & Biases

The journal writes every event to disk before a sender sends it. So no metric is lost if a server is silent or a process
crashes, and training never waits. The run's next start, or `sclip sync RUN`, sends the remaining events.
`tracking.also` names the destinations that get the metrics in addition to MLflow.
"""

from sclip.tracking.also import check_installed
from sclip.tracking.journal import history
from sclip.tracking.moved import TrackingError, follow
from sclip.tracking.opening import open_parent, open_recorded, open_run
from sclip.tracking.store import RUN_NAME_TAG, first_cause, settings, store_uri, try_store
from sclip.tracking.tracker import Tracker

__all__ = ["RUN_NAME_TAG", "Tracker", "TrackingError", "first_cause", "follow", "history", "settings"]
__all__ += ["check_installed", "open_parent", "open_recorded", "open_run", "store_uri", "try_store"]
