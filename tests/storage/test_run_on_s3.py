"""A run in an object store: its folder keeps the promises that it keeps on a disk, and ranks share no disk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sclip.config import CheckpointConfig, Config, ModelConfig, RunConfig
from sclip.config.loader import to_tree
from sclip.data.schedule import NamedShard, Schedule
from sclip.run.audit.run_files import read_ledger
from sclip.storage.paths import sizes, storage_path
from sclip.train import checkpoint, manifest, run_checkpoints
from sclip.train.manifest import CheckpointError, NotWritten
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import compare_inputs, record_inputs
from sclip.train.sample_accounts import Ledger
from support import ranks
from support.object_store import ObjectStore, every

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SHARD = NamedShard("0/0.tar", "s3://bucket/0.tar")
SOURCES = [{SHARD: 500}]
CONFIG = Config(run=RunConfig(name="first"))
Trained = tuple[nn.Module, torch.optim.Optimizer]


@pytest.fixture
def folder(store: ObjectStore, request: pytest.FixtureRequest) -> RunFolder:
    """A run that was started and has no checkpoint yet."""
    run = RunFolder(store.path(f"{request.node.name}/runs/first"))
    compare_inputs(run, to_tree(CONFIG), SOURCES)
    record_inputs(run, to_tree(CONFIG), SOURCES)
    return run


def trained(seed: int = 0, sharded: bool = False) -> Trained:
    """Return the smallest model that a checkpoint can hold, and its optimizer, after one step."""
    torch.manual_seed(seed)
    model: nn.Module = nn.Linear(4, 4)
    if sharded:
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def save(folder: RunFolder, *steps: int, **metrics: float) -> None:
    for step in steps:
        checkpoint.save(folder.step_path(step), *trained(), {"step": step, "metrics": metrics})


def steps(folder: RunFolder) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.checkpoints()]


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    tensors = model.state_dict().items()
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors}


def on_a_node(rank: int, world_size: int, uri: str, disks: str) -> dict[str, Any]:
    tempfile.tempdir = f"{disks}/{rank}"
    step = storage_path(uri) / "step-00000001"
    checkpoint.save(step, *trained(sharded=True), {"step": 1})
    model, optimizer = trained(seed=7, sharded=True)
    state = checkpoint.load(step, model, optimizer)
    leftovers = [name for name in sizes(Path(tempfile.tempdir)) if not name.endswith("own.lock")]
    return {"state": json.dumps(state), "left": json.dumps(leftovers), **whole(model)}


def test_ranks_without_a_common_disk_write_one_checkpoint_and_resume_from_it(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Every seventh request fails."""
    for rank in range(2):
        (tmp_path / "disks" / str(rank)).mkdir(parents=True)
    name = f"ranks-{tmp_path.name}"
    store.fault = every(7)
    results = ranks.run(on_a_node, 2, tmp_path, store.uri(name), str(tmp_path / "disks"))
    store.fault = None
    expected = trained()[0].state_dict()
    for result in results:
        assert (result["state"], result["left"]) == ('{"step": 1}', "[]")
        assert all(torch.equal(result[key], tensor) for key, tensor in expected.items())
    step = store.path(name) / "step-00000001"
    assert manifest.verify(step) == ""
    shards = sorted(file for file in sizes(step) if file != manifest.MANIFEST)
    assert [file[:11] for file in shards] == ["shard-00001", "shard-00002"]
    written = [request.rpartition("/")[2] for request in store.requests if request.startswith("PUT")]
    assert written[-1] == manifest.MANIFEST
    assert store.failed > 0


def test_a_checkpoint_that_storage_does_not_take_is_not_counted_and_can_be_written_again(
    store: ObjectStore, folder: RunFolder
) -> None:
    save(folder, 1)
    store.fault = lambda method, path, number: 503 * (method != "GET" and "shard-" in path)
    with pytest.raises(NotWritten, match=r"step-00000002/shard-\S+: storage failed 3 times"):
        save(folder, 2)
    store.fault = None
    assert steps(folder) == [1]
    save(folder, 2)
    assert steps(folder) == [2, 1]
    with pytest.raises(CheckpointError, match="already holds a complete checkpoint"):
        save(folder, 2)


def test_free_space_is_checked_on_the_disk_where_checkpoints_are_staged(folder: RunFolder) -> None:
    with pytest.raises(CheckpointError, match=rf"^{tempfile.gettempdir()}: \S+ GB free, a checkpoint takes"):
        run_checkpoints.make_room(folder, 10**18, CheckpointConfig())


def test_the_remains_of_a_crash_are_removed(folder: RunFolder) -> None:
    """A crash leaves half a checkpoint, one with changed bytes, and quarantine lines after the last good checkpoint."""
    save(folder, 1, 2, 3)
    for step in (1, 2, 3):
        folder.set_aside([{"step": step, "key": "0007"}])
    (name,) = (file for file in sizes(folder.step_path(2)) if file != manifest.MANIFEST)
    damaged = folder.step_path(2) / name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    (folder.step_path(3) / manifest.MANIFEST).unlink()
    (note,) = folder.roll_back()
    assert note.startswith(f"{damaged.parent}: {damaged}: its bytes have changed since")
    assert steps(folder) == [1]
    assert manifest.is_complete(folder.path / "damaged-step-00000002")
    assert sorted(path.name for path in folder.path.glob("step-*")) == ["step-00000001"]
    assert [json.loads(line)["step"] for line in folder.quarantine.read_text().splitlines()] == [1]
    assert folder.roll_back() == []


def test_a_sign_of_life_is_written_once_a_minute_and_its_failure_never_ends_a_run(
    store: ObjectStore, folder: RunFolder
) -> None:
    def signs() -> int:
        return sum(request.startswith("PUT") and request.endswith("/alive") for request in store.requests)

    assert signs() == 1  # written at the start
    for _ in range(3):
        folder.touch()
    assert signs() == 1
    store.fault = lambda method, path, number: 503
    RunFolder(folder.path).touch()
    assert store.failed > 0


def test_the_weights_that_a_run_starts_from_are_copied_to_the_node(folder: RunFolder, tmp_path: Path) -> None:
    with folder.starting(ModelConfig()) as model:
        assert model == ModelConfig()
    save_file({"w": torch.ones(2)}, tmp_path / "w")
    folder.init.write_bytes((tmp_path / "w").read_bytes())
    with folder.starting(ModelConfig()) as model:
        assert Path(model.pretrained).read_bytes() == (tmp_path / "w").read_bytes()
    assert not Path(model.pretrained).exists()


def test_the_ledger_has_a_part_for_each_checkpoint_and_the_audit_reads_them_all(folder: RunFolder) -> None:
    """Steps after the newest checkpoint are lost with the node, and are trained again."""
    schedule = Schedule.weighted(0, 1, [[10, 10]], ())
    places = {entry: schedule.visit(entry) for entry in range(2)}
    ledger = Ledger(folder.path, schedule, rank=0, world_size=1, from_step=0)
    ledger.add(1, ([0, 1], [3, 4]), ([], []))
    ledger.sync()
    ledger.sync()  # nothing new, so no new part
    ledger.add(2, ([0], [5]), ([1], [6]))
    ledger.sync()
    ledger.add(3, ([0], [7]), ([], []))
    ledger.close()
    again = Ledger(folder.path, schedule, rank=0, world_size=1, from_step=2)
    again.add(3, ([0], [7]), ([], []))
    again.sync()
    names = sorted(sizes(folder.path / "ledger"))
    assert names == [f"0000-00000-{part:05d}.jsonl" for part in range(3)] + [
        f"0001-00000-{part:05d}.jsonl" for part in range(2)
    ]
    notes: list[str] = []
    assert list(read_ledger(folder.path, notes)) == [
        (1, "trained", places[0], [3]), (1, "trained", places[1], [4]), (2, "trained", places[0], [5]),
        (2, "filtered", places[1], [6]), (3, "trained", places[0], [7]),
    ]  # fmt: skip
    assert notes == []
