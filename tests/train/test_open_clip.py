"""Without negatives and knowledge encoder, training equals open_clip's: the same weights give the same losses."""

from __future__ import annotations

import argparse
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sclip.config import Config, KEEConfig, LossConfig, ModelConfig
from sclip.model import build_model
from sclip.model.attention import LeanAttention
from sclip.model.export import export_state
from sclip.train.optimizer import learning_rate
from support import ranks
from support.train_cases import VIT, batch_for, config_with, part_of, start, training_batch

STEPS = 10
ROWS = 8
NAME = VIT.name


def config_for(form: str, **train: Any) -> Config:
    loss = LossConfig(contrastive=form, negatives="none")  # type: ignore[arg-type]
    bias = -10.0 if form == "sigmoid" else 0.0
    config = config_with(loss, **train)
    model = ModelConfig(name=NAME, logit_bias=bias, kee=KEEConfig(enabled=False))
    return Config(model=model, loss=loss, train=config.train)


def whole(number: int) -> dict[str, Tensor]:
    """Return a step's batch in which every row is valid, since open_clip uses every row."""
    return training_batch(number, VIT, [True] * ROWS)


def ours(config: Config, rank: int, world_size: int) -> list[float]:
    """Train with our step, with packed captions if the config says so; return the global loss of each step."""
    step = start(config)
    assert sum(isinstance(module, LeanAttention) for module in step.model.modules()) == 2 * 2
    every = {"valid": torch.ones(ROWS // world_size, dtype=torch.bool)}
    losses = []
    for number in range(STEPS):
        batch = batch_for(config, number, rank, world_size, ROWS) | every
        assert ("packed_text" in batch) == config.train.pack_text
        losses.append(step(batch, number / STEPS)["loss"].item())
    return losses


def theirs(config: Config, loss: nn.Module, rank: int, world_size: int) -> list[float]:
    """Train open_clip's model with its own epoch function, one batch per epoch; return its losses."""
    torch.set_num_threads(1)
    bias = config.model.logit_bias or None
    clip = open_clip.create_model(NAME, output_dict=True, init_logit_bias=bias)
    torch.manual_seed(0)
    state = export_state(build_model(config.model))
    clip.load_state_dict({name[5:]: tensor for name, tensor in state.items() if name.startswith("clip.")})
    model = DistributedDataParallel(clip)
    named = list(clip.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
            {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": config.train.weight_decay},
        ],
        lr=0.0, betas=(0.9, config.train.beta2), eps=1e-6,
    )  # fmt: skip
    losses: list[float] = []

    def seen(**features: Any) -> Any:
        parts = loss(**features)
        losses.append(float(sum(parts.values())))
        return parts

    args = argparse.Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, horovod=False,
        grad_clip_norm=config.train.max_grad_norm, log_every_n_steps=1 << 30, wandb=False, batch_size=ROWS,
        world_size=world_size, rank=rank, local_rank=rank, distributed=True, log_local=False,
    )  # fmt: skip
    for number in range(STEPS):
        rate = learning_rate(number / STEPS, config.train)

        def schedule(_: int, rate: float = rate) -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate

        data = {"train": OneBatch(part_of(whole(number), rank, world_size))}
        train_one_epoch(model, data, seen, 0, optimizer, None, schedule, None, args)
    return losses


class OneBatch:
    """A data source of one batch, normalized as our model normalizes it on the device."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        model = open_clip.create_model(NAME)
        mean, std = (torch.tensor(model.visual.preprocess_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.batch = ((batch["image"].float() / 255 - mean) / std, batch["text"].long())
        self.dataloader = self
        self.num_batches, self.num_samples = 1, len(batch["image"])

    def set_epoch(self, epoch: int) -> None:
        pass

    def __iter__(self) -> Any:
        return iter([self.batch])


def on_a_rank(rank: int, world_size: int) -> dict[str, dict[str, list[float]]]:
    process, results = {"rank": rank, "world_size": world_size}, {}
    losses: dict[str, Any] = {
        "infonce": ClipLoss(local_loss=True, gather_with_grad=True, **process),
        "sigmoid": SigLipLoss(**process),
    }
    for form, loss in losses.items():
        config = config_for(form, sharding="ddp", pack_text=True)
        results[form] = {
            "theirs": theirs(config, loss, rank, world_size),
            "ddp, packed": ours(config, rank, world_size),
        }
        if world_size == 2:
            unpacked = config_for(form, sharding="fsdp", pack_text=False)
            results[form]["fsdp"] = ours(unpacked, rank, world_size)
        if form == "infonce" and world_size < 4:
            compiled = config_for(form, compile=True, pack_text=False)
            results[form]["compiled"] = ours(compiled, rank, world_size)
    return results


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("open-clip")
    return {size: ranks.run(on_a_rank, size, folder) for size in (1, 2, 4)}


@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ten_steps_with_lean_attention_have_the_mean_of_the_losses_of_open_clips_own_training(
    outcomes: dict[int, list[dict[str, Any]]], form: str, size: int
) -> None:
    """Also for the sigmoid loss: open_clip divides a rank's pairs by its own rows, we divide all pairs by all rows."""
    form_results = [outcome[form] for outcome in outcomes[size]]
    expected = [
        sum(losses) / size for losses in zip(*(outcome["theirs"] for outcome in form_results), strict=True)
    ]
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] - 0.1
    for outcome in form_results:
        for way in outcome.keys() - {"theirs"}:
            assert outcome[way] == pytest.approx(expected, rel=1e-4), way
