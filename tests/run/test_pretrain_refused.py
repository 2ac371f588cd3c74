"""A run refuses settings that cannot work before it leaves anything behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sclip.config import ConfigError
from sclip.run.summary import Summary
from support.runs import port_without_server

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("attached")]


EVALUATION = ("evaluate.every=4", "checkpoint.every=4")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.shards=/nowhere/*.tar",), "no such shard"),
        (("train.num_workers=16",), "the cluster has 4"),
        (("train.num_workers=1", "train.use_gpu=true"), "each worker needs a GPU"),
        ((*EVALUATION, "evaluate.cpus=3.5"), " + 3.5 for evaluate.cpus), but the cluster has 4"),
        ((*EVALUATION, "evaluate.gpus=1"), "the evaluation needs evaluate.gpus=1, but the cluster has 0"),
        ((*EVALUATION, "evaluate.suite_beside=nothing"), "suite 'nothing'"),
        (("evaluate.exclude=nowhere.jsonl",), "nowhere.jsonl: cannot be read"),
        (("model.name=ViT-B-23",), "ViT-B-32"),
        (("model.pretrained=none.safetensors",), "no such file"),
        (("run.init_from=nothing",), "not a file or folder of weights, a finished run"),
        (("run.init_from=models:/nothing@candidate",), "models:/nothing@candidate"),
        (("run.compare_with=nothing",), "no finished run of this name"),
        (("run.storage=http://host/runs",), "HTTP storage cannot be written to"),
        (("tracking.uri=" + port_without_server(),), "tracking.offline=true"),
    ],
)
def test_a_run_that_cannot_work_ends_before_it_leaves_anything(
    start: Callable[..., Summary], storage: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        start("run.name=refused", *overrides)
    assert message in str(raised.value)
    assert not (storage / "runs" / "refused").exists()
