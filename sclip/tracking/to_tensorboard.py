"""Write the metrics of a journal to TensorBoard's event file, `tensorboard/` in the run's folder.

Each start of the run, and each retry after a failed write, rewrites the file from the journal's beginning, so the file
never has a metric twice. A TensorBoard that reads the file meanwhile finds the same bytes again, because the bytes
depend only on the journal. tensorboardX comes with Ray Train; `torch.utils.tensorboard` would need all of TensorBoard.
"""

from __future__ import annotations

from itertools import islice

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event as EventProto
from tensorboardX.proto.summary_pb2 import Summary

from sclip.tracking.journal import Event, Journal

_EVENTS = 1000
"""Maximum events that one `send` writes; between two sends, the sender checks whether the run ends."""


class TensorBoard:
    """TensorBoard's event file of a run."""

    def __init__(self, journal: Journal, name: str) -> None:
        """Write to the file `name` below the journal's folder."""
        self.name = "TensorBoard"
        self._journal = journal
        self._path = journal.folder / name
        self._writer: RecordWriter | None = None
        self._offset = 0

    def send(self, until: int) -> bool:
        """Write the next events before offset `until`; False if none is left. Raises OSError if a write fails."""
        writer, offset = self._writer, self._offset
        self._writer, self._offset = None, 0  # if this send fails, the next one starts over
        if writer is None:
            writer, offset = self._begin(), 0
        end = offset
        if offset < until:
            for end, event in islice(self._journal.read(offset), _EVENTS):  # noqa: B007
                if "metrics" in event:
                    writer.write(_record(event))
            writer.flush()
        self._writer, self._offset = writer, end
        return end > offset

    def _begin(self) -> RecordWriter:
        self._path.parent.mkdir(exist_ok=True)
        writer = RecordWriter(str(self._path))
        _, head = next(self._journal.read())
        first = EventProto(wall_time=head["time_ms"] / 1000, file_version="brain.Event:2")
        writer.write(first.SerializeToString())
        return writer


def _record(event: Event) -> bytes:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in event["metrics"].items()]
    proto = EventProto(wall_time=event["time_ms"] / 1000, step=event["step"], summary=Summary(value=values))
    return bytes(proto.SerializeToString())
