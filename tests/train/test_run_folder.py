"""A run's folder: a run resumes only with the same config, from its newest whole checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sclip.config import (
    Config,
    ConfigError,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    RunConfig,
    TrackingConfig,
    TrainConfig,
)
from sclip.config.loader import keys, to_tree
from sclip.data.schedule import NamedShard
from sclip.train import checkpoint, manifest
from sclip.train.run_folder import RunFolder
from sclip.train.run_inputs import RESUMABLE, compare_inputs, read_run_inputs, record_inputs
from support.train_cases import small

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process, no group

SHARDS = {NamedShard(f"0/{n}.tar", f"/data/{n}.tar"): samples for n, samples in enumerate((500, 500, 17))}
SOURCES = [SHARDS]
CONFIG = Config(run=RunConfig(name="first"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that was started and has no checkpoint yet."""
    run = RunFolder(tmp_path / "first")
    assert compare_inputs(run, to_tree(CONFIG), SOURCES) == []
    assert not run.path.exists()
    record_inputs(run, to_tree(CONFIG), SOURCES)
    return run


def save(folder: RunFolder, step: int) -> Path:
    path = folder.step_path(step)
    checkpoint.save(path, *small(), {"step": step})
    return path


def differing(folder: RunFolder, config: Config, *sources: dict[NamedShard, int]) -> list[str]:
    """Return the lines of a refusal between its first and its last line."""
    with pytest.raises(ConfigError, match=r"^run\.name='first': a run of this name") as raised:
        compare_inputs(folder, to_tree(config), sources or SOURCES)
    _, *lines, remedy = str(raised.value).splitlines()
    assert remedy == "choose another run.name, or undo these changes to resume the run"
    return [line.removeprefix("  ") for line in lines]


def quarantined(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.quarantine.read_text().splitlines()]


def rejected(step: int, key: str = "0007") -> dict[str, Any]:
    fields = {"source": 0, "pass": 2, "name": "0/1.tar", "shard": "/data/1.tar", "index": 7}
    return fields | {"step": step, "key": key, "reason": "not a readable image"}


def test_a_run_resumes_after_its_data_was_moved_and_records_the_new_place(folder: RunFolder) -> None:
    moved = {NamedShard(name, f"s3://key:planted@bucket/{name[2:]}"): n for (name, _), n in SHARDS.items()}
    tree = to_tree(dataclasses.replace(CONFIG, data=DataConfig(shards=("s3://key:planted@bucket/*.tar",))))
    (note,) = compare_inputs(folder, tree, [moved])
    assert note.startswith("the data was moved")
    assert "'s3://***@bucket/*.tar'" in note
    record_inputs(folder, tree, [moved])
    config, (shards,) = read_run_inputs(folder.path)
    assert config.data.shards == ("s3://***@bucket/*.tar",)
    assert [tuple(shard) for shard in shards] == [
        (f"0/{n}.tar", f"s3://***@bucket/{n}.tar") for n in range(3)
    ]
    assert compare_inputs(folder, tree, [moved]) == []
    fewer = {shard: n - (shard.name == "0/1.tar") for shard, n in moved.items()}
    with pytest.raises(ConfigError, match=r"data\.shards: .*\n  shards: 1 differ, the first is 0/1\.tar"):
        compare_inputs(folder, to_tree(CONFIG), [fewer])


def test_changed_learning_settings_or_shards_are_refused_key_by_key(folder: RunFolder) -> None:
    data = DataConfig(crop_scale=(0.1, 1.0), shards=("a", "b"), weights=(3.0, 1.0))
    train, model = TrainConfig(epochs=3, num_workers=4), ModelConfig(context_length=248)
    changed = dataclasses.replace(CONFIG, train=train, data=data, model=model)
    assert differing(folder, changed) == [
        "data.crop_scale: [0.9, 1.0] -> [0.1, 1.0]", "data.weights: [] -> [3.0, 1.0]",
        "model.context_length: 0 -> 248", "train.epochs: 10 -> 3",
    ]  # fmt: skip
    first, last = (NamedShard(f"0/{n}.tar", f"/data/{n}.tar") for n in (0, 2))
    more = SHARDS | {NamedShard("0/3.tar", "/data/3.tar"): 1}
    fewer = {shard: samples for shard, samples in SHARDS.items() if shard != last}
    other = SHARDS | {NamedShard("0/1.tar", "/data/1.tar"): 499}
    for shards, name in ((more, "0/3.tar"), (fewer, "0/2.tar"), (other, "0/1.tar")):
        assert differing(folder, CONFIG, shards) == [f"shards: 1 differ, the first is {name}"]
    without = {shard: samples for shard, samples in SHARDS.items() if shard != first}
    moved = [without, {NamedShard("1/0.tar", "/data/0.tar"): 500}]  # moved into another source
    assert differing(folder, CONFIG, *moved) == ["shards: 2 differ, the first is 0/0.tar"]
    assert set(keys()) >= RESUMABLE


def test_a_second_start_with_other_workers_passes_and_keeps_what_the_first_recorded(
    folder: RunFolder,
) -> None:
    resumed = to_tree(dataclasses.replace(CONFIG, train=TrainConfig(num_workers=4)))
    assert compare_inputs(folder, resumed, [dict(reversed(SHARDS.items()))]) == []
    record_inputs(folder, resumed, SOURCES)
    assert folder.read("config.json") == to_tree(CONFIG)
    shards = {shard.name: {"url": shard.url, "samples": n} for shard, n in SHARDS.items()}
    assert folder.read("shards.json") == {"sources": [{"weight": 1.0, "shards": shards}]}


def secret(word: str) -> tuple[dict[str, Any], list[dict[NamedShard, int]]]:
    """Return a config and shards whose URIs contain a secret in every possible way."""
    patterns = (f"s3://key:{word}@bucket/*.tar", f"https://user:{word}@host/{{0..1}}.tar?sig={word}")
    config = dataclasses.replace(
        CONFIG,
        run=RunConfig(name="first", init_from=f"https://user:{word}@host/weights.safetensors"),
        data=DataConfig(shards=patterns),
        evaluate=EvaluateConfig(
            retrieval=(f"gs://{word}@bucket/*.tar",), exclude=(f"https://h/x?sig={word}",)
        ),
        tracking=TrackingConfig(uri=f"postgresql://user:{word}@db/mlflow"),
    )
    shards = [
        f"s3://key:{word}@bucket/a.tar",
        *(f"https://user:{word}@host/{n}.tar?sig={word}" for n in (0, 1)),
    ]
    return to_tree(config), [{NamedShard(f"{n}/{n}.tar", url): 100 + n for n, url in enumerate(shards)}]


def test_no_secret_of_a_uri_is_recorded_and_each_may_change_before_the_run_goes_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "first")
    record_inputs(run, *secret("planted"))
    compare_inputs(run, *secret("another"))
    assert not [file for file in run.path.iterdir() if "planted" in file.read_text()]
    tree, (shards,) = secret("another")
    shards.popitem()
    with pytest.raises(ConfigError, match=r"shards: 1 differ, the first is 2/2\.tar"):
        compare_inputs(run, tree, [shards])


def test_the_newest_whole_checkpoint_is_used_crash_remains_go_and_other_versions_stay(
    folder: RunFolder,
) -> None:
    assert folder.latest() is None
    kept = {save(folder, step) for step in (5, 100, 20)}
    (save(folder, 1000) / manifest.MANIFEST).unlink()
    folder.step_path(1005).mkdir()
    assert folder.latest() == (folder.path / "step-00000100", 100)
    assert folder.roll_back() == []
    assert set(folder.path.glob("*step-*")) == kept
    other = folder.step_path(100)
    (other / manifest.MANIFEST).write_text('{"format": 1, "state": {}, "files": {}}')
    with pytest.raises(manifest.OtherFormat, match=r"format 1, .* or choose another run\.name"):
        folder.roll_back()
    assert folder.latest() == (other, 100)


def test_a_damaged_checkpoint_is_set_aside_and_reported_each_time(folder: RunFolder) -> None:
    kept = save(folder, 5)
    for _ in range(2):
        damaged = save(folder, 10)
        file = next(damaged.glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        (note,) = folder.roll_back()
        assert note.startswith(f"{damaged}: ")
        assert "SHA-256" in note
        assert note.endswith("set aside, the checkpoint before it is used")
        assert not damaged.exists()
        assert manifest.is_complete(folder.path / "damaged-step-00000010")
        assert folder.latest() == (kept, 5)
    assert folder.roll_back() == []


def test_quarantine_lines_after_the_newest_checkpoint_and_half_a_line_are_taken_back(
    folder: RunFolder,
) -> None:
    """Their samples will be read again, and would otherwise be listed twice."""
    folder.set_aside([])
    assert not folder.quarantine.exists()
    save(folder, 5)
    folder.set_aside([rejected(5), rejected(5, "0008")])
    folder.set_aside([rejected(10, "0009")])
    with folder.quarantine.open("a") as file:
        file.write('{"key": "0010", "step": 5, "rea')
    folder.roll_back()
    assert quarantined(folder) == [rejected(5), rejected(5, "0008")]
    folder.set_aside([rejected(10, "0009")])
    assert [line["key"] for line in quarantined(folder)] == ["0007", "0008", "0009"]
    (folder.step_path(5) / manifest.MANIFEST).unlink()
    folder.roll_back()
    assert quarantined(folder) == []
