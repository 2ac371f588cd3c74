"""Lean attention computes what torch's own module computes, with the same parameters, under every mask and wrapping."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock
from torch import Tensor, nn

from sclip.config import LoRAConfig, ModelConfig
from sclip.model.attention import LeanAttention, make_lean, mask_heads
from support.train_cases import MODEL, VIT, batch_for, config_with, start

ROWS, PLACES, HEADS = 3, 5, 2
CAUSAL = torch.full((PLACES, PLACES), -torch.inf).triu(1)
PADDED = torch.zeros(ROWS, PLACES)
PADDED[1, 3:] = -torch.inf
PER_HEAD = torch.randn(ROWS * HEADS, PLACES, PLACES, generator=torch.Generator().manual_seed(0))

MASKS: list[dict[str, Tensor]] = [
    {}, {"attn_mask": CAUSAL}, {"attn_mask": PER_HEAD}, {"key_padding_mask": PADDED},
]  # fmt: skip


@pytest.mark.parametrize("masks", MASKS)
def test_each_kind_of_mask_gives_the_output_and_the_gradients_of_torchs_module(
    masks: dict[str, Tensor],
) -> None:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(8, HEADS)
    nn.init.normal_(block.attn.in_proj_bias)
    plain = copy.deepcopy(block.attn)
    make_lean(block)
    hidden = torch.randn(ROWS, PLACES, 8)
    outputs = [
        module(hidden, hidden, hidden, need_weights=False, **masks)[0] for module in (block.attn, plain)
    ]
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
    for output in outputs:
        output.cumsum(0).square().sum().backward()
    assert mask_heads(block.attn) == 1 < mask_heads(plain)
    for (name, lean), (_, own) in zip(block.attn.named_parameters(), plain.named_parameters(), strict=True):
        assert own.grad.any()
        assert (lean.grad - own.grad).norm() <= 1e-6 * own.grad.norm() + 1e-6, name


def trained(
    model: ModelConfig, attention: str, steps: int, pack_text: bool
) -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses of the steps, and the gradients of the first."""
    config = config_with(model=dataclasses.replace(model, attention=attention), pack_text=pack_text)
    step = start(config)
    lean = sum(isinstance(module, LeanAttention) for module in step.model.modules())
    assert lean == (0 if attention == "plain" else 3 if model.name == MODEL.name else 6)
    gradients: dict[str, Tensor] = {}

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for name, parameter in step.model.named_parameters():
            if parameter.grad is not None:
                gradients.setdefault(name, parameter.grad.clone())

    step.optimizer.register_step_pre_hook(keep)
    return [step(batch_for(config, number), 0.3)["loss"].item() for number in range(steps)], gradients


@pytest.mark.parametrize(
    ("model", "steps", "pack_text"),
    [
        (MODEL, 10, True),
        (VIT, 10, True),
        (VIT, 2, False),
        (dataclasses.replace(VIT, lora=LoRAConfig(rank=2, alpha=8.0)), 4, True),
    ],
)
def test_steps_of_lean_attention_have_the_losses_and_gradients_of_plain_attention(
    model: ModelConfig, steps: int, pack_text: bool
) -> None:
    losses, gradients = trained(model, "lean", steps, pack_text)
    expected, plain_gradients = trained(model, "plain", steps, pack_text)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert (gradients[name] - gradient).norm() <= 1e-6 * gradient.norm(), name


def test_attention_that_is_not_self_attention_of_a_batch_stays_as_it_is() -> None:
    modules = (
        ResidualAttentionBlock(8, HEADS, is_cross_attention=True),
        ResidualAttentionBlock(8, HEADS, batch_first=False),
        AttentionalPooler(8, 8, HEADS, n_queries=2),
    )
    for module in modules:
        make_lean(module)
        assert type(module.attn) is nn.MultiheadAttention
