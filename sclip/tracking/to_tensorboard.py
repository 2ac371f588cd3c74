"""Write the metrics of a journal to TensorBoard's event file, `tensorboard/` in the run's folder.

The bytes of the file follow from the journal alone, so each start of the run, and each failed write, writes the file
anew from the journal's beginning: no metric is in it twice, whatever ended the process, and a TensorBoard that reads it
meanwhile finds the same bytes again. A step that is trained twice is in it once: the journal keeps each
step's first values. tensorboardX, which Ray Train brings, frames the records; `torch.utils.tensorboard` would
need all of TensorBoard only to write files.
"""

from __future__ import annotations

from itertools import islice

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event as EventProto
from tensorboardX.proto.summary_pb2 import Summary

from sclip.tracking.journal import Event, Journal

_EVENTS = 1000
"""Events written between two looks at whether the run ends."""


class TensorBoard:
    """The event file of a run."""

    def __init__(self, journal: Journal, name: str) -> None:
        """Write the file of this name, below the journal's folder."""
        self.name = "TensorBoard"
        self._journal = journal
        self._path = journal.folder / name
        self._writer: RecordWriter | None = None
        self._offset = 0

    def send(self, until: int) -> bool:
        """Write the next events before an offset of the journal; return False if none is left. Raises OSError."""
        writer, offset = self._writer, self._offset
        self._writer, self._offset = None, 0  # should this fail
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
    made = EventProto(wall_time=event["time_ms"] / 1000, step=event["step"], summary=Summary(value=values))
    return bytes(made.SerializeToString())
