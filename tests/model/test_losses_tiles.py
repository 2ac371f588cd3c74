"""Above a number of logits the losses are computed in tiles, with the same values and gradients in less memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint

from sclip.config import LossConfig
from sclip.model import contrastive, structure_loss
from sclip.model.contrastive import GlobalRows, contrastive_rows
from sclip.model.losses import distil_rows
from support.loss_cases import Tensors, batch_of, features_of, only, with_gradients

ROWS = 7
FORMS = {
    "infonce": LossConfig(),
    "negatives as texts": LossConfig(negatives_as_texts=True),
    "max_margin": LossConfig(contrastive="max_margin", contrastive_margin=2.0, contrastive_warmup=0.0),
    "max_margin at the start": LossConfig(contrastive="max_margin", contrastive_warmup=1.0),
    "sigmoid": LossConfig(contrastive="sigmoid"),
    "distil": LossConfig(distil=1.0),
}


def features(seed: int = 0) -> Tensors:
    """Return features in double precision. Rows 2, 4 and 5 are equal: candidates with the same score.

    Features are multiples of 1/16, so that products are exact and ties do not depend on the order of summation.
    """
    made = only(torch.tensor([0, 1, 2, 3, 2, 2, 6]), features_of(ROWS, seed))
    made["logit_bias"] = torch.tensor(-5.0)
    return with_gradients({name: (16 * tensor.double()).round() / 16 for name, tensor in made.items()})


def with_tile(monkeypatch: pytest.MonkeyPatch, tile: int, form: str) -> tuple[Tensor, list[Tensor | None]]:
    """Return the loss of each row, and the gradients of a weighted sum, with padding and two rows of one image."""
    monkeypatch.setattr(contrastive, "TILE", tile)
    batch = batch_of([0, 1, 2, 1, 4, 5, 6], [True] * 3 + [False] + [True] * 3, [True] * 6 + [False])
    valid = batch["valid"]
    rows = GlobalRows.gathered(batch["image_digest"], valid, batch["has_negative"] & valid[:, None])
    model = features()
    if form == "distil":
        terms = distil_rows(model, {name: tensor.detach() for name, tensor in features(seed=5).items()}, rows)
    else:
        terms = contrastive_rows(model, rows, FORMS[form], progress=0.5)
    weights = torch.linspace(1.0, 2.0, ROWS, dtype=torch.float64)
    return terms, list(torch.autograd.grad(terms @ weights, list(model.values()), allow_unused=True))


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("form", FORMS)
def test_tiles_of_any_width_give_the_values_and_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, form: str, width: int
) -> None:
    logits = {"negatives as texts": 3, "distil": 2}.get(form, 1)  # of a row with each of the seven
    sizes = (contrastive.TILE, ROWS * width * logits)
    computed: list[Any] = []

    def counted(*args: Any, **how: Any) -> Any:
        computed.append(args)
        return checkpoint(*args, **how)

    monkeypatch.setattr(contrastive, "checkpoint", counted)
    whole, tiled = (with_tile(monkeypatch, size, form) for size in sizes)
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-12)
    assert len(computed) >= math.ceil(ROWS / width)


def test_infonce_of_65536_rows_on_eight_ranks_takes_little_memory() -> None:
    """Measured on fake tensors, features and their gradients included."""
    count, width = 8192, 768
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.autograd.set_multithreading_enabled(False):
            names = ("image_features", "text_features")
            made = {name: torch.empty(count, width, requires_grad=True) for name in names}
            made["negative_features"] = torch.empty(count, 1, width, requires_grad=True)
            made["logit_scale"] = torch.empty((), requires_grad=True)
            batch = {
                "image_digest": torch.empty(count, dtype=torch.int64),
                "valid": torch.empty(count, dtype=torch.bool),
                "has_negative": torch.empty(count, 1, dtype=torch.bool),
            }
            tracker = MemTracker()
            tracker.track_external(*made.values(), *batch.values())
            with tracker:
                structure_loss(made, batch, LossConfig())[0].backward()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    finally:
        dist.destroy_process_group()
    assert peak["Total"] / 2**30 < 1.2
