"""How blocks are computed: what is recomputed in backward, what is compiled, and that nothing else changes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sclip.config import ModelConfig, TrainConfig
from sclip.model import build_model
from sclip.model.packing import pack
from sclip.model.towers import block_lists
from sclip.train.transformer_blocks import change_forward
from support.train_cases import MODEL, VIT, config_with, start, training_batch

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointed": {"activation_checkpointing": "block"},
    "checkpointed selectively": {"activation_checkpointing": "selective"},
    "compiled": {"compile": True},
    "compiled and checkpointed": {"compile": True, "activation_checkpointing": "selective"},
}

LISTS = {"clip.visual.transformer.resblocks", "clip.transformer.resblocks", "kee.layers"}


class Graphs:
    """A torch.compile backend that keeps each graph and runs it unchanged."""

    def __init__(self) -> None:
        self.made: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.made.append(graph)
        return graph.forward


class Operations(TorchDispatchMode):
    """Counts the operations that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def small(way: str, backend: Any = "aot_eager", model: ModelConfig = VIT) -> Any:
    return start(config_with(model=model, **WAYS[way]), compile_backend=backend).model


def features(model: nn.Module, step: int = 0) -> Tensor:
    outputs = model(training_batch(step, model.config))
    names = ("image_features", "text_features", "negative_features")
    return torch.cat([outputs[name].flatten(0, -2) for name in names])


def backward_counts(way: str, model: ModelConfig = VIT) -> Counter[str]:
    loss = features(small(way, model=model)).square().cumsum(0).mean()
    with Operations() as operations:
        loss.backward()
    return operations.counted


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


def test_compiled_and_checkpointed_blocks_change_no_name_and_a_copy_computes_with_its_own_weights() -> None:
    model, plain = small("compiled and checkpointed"), build_model(VIT)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    assert model.state_dict().keys() == plain.state_dict().keys()
    other = copy.deepcopy(model)
    before = features(model)
    columns = pack({name: column.numpy() for name, column in training_batch(0, VIT).items()})
    packed = model({name: torch.from_numpy(column) for name, column in columns.items()})["text_features"]
    torch.testing.assert_close(packed, before[len(packed) : 2 * len(packed)], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for block in other.kee.layers:
            block.linear1.weight.mul_(3.0)
    torch.testing.assert_close(features(model), before)
    assert (features(other) - before).abs().max() > 1e-3


def test_checkpointing_recomputes_whole_blocks_or_all_but_products_attention_and_convolutions() -> None:
    plain, again = backward_counts("plain"), backward_counts("checkpointed")
    selective, blocks = backward_counts("checkpointed selectively"), 6
    products, attention = ("mm", "addmm", "bmm"), "_scaled_dot_product_flash_attention_for_cpu"
    assert again["gelu"] == selective["gelu"] == plain["gelu"] + blocks
    assert again[attention] == blocks
    assert sum(again[p] for p in products) >= sum(plain[p] for p in products) + 3 * blocks
    for costly in (*products, attention):
        assert selective[costly] == plain[costly]
    plain, selective, again = (
        backward_counts(way, MODEL) for way in ("plain", "checkpointed selectively", "checkpointed")
    )
    assert plain["convolution"] == selective["convolution"] == 0
    assert again["convolution"] == len(build_model(MODEL).clip.visual.trunk.blocks)
    assert min(selective["native_layer_norm"], again["native_layer_norm"]) > plain["native_layer_norm"]


def test_every_list_of_blocks_is_compiled_once_and_for_other_lengths_once_more() -> None:
    graphs = Graphs()
    model = small("compiled", graphs)
    assert block_lists(model).keys() == LISTS
    features(model)
    features(model, step=1)
    assert len(graphs.made) == len(LISTS)
    for graph in graphs.made:
        assert any("attention" in str(node.target) for node in graph.graph.nodes)
    for length in range(5, 12):
        mask = torch.full((length, length), -torch.inf).triu(1)
        model.clip.transformer(torch.randn(7, length, 16, requires_grad=True), attn_mask=mask)
    assert len(graphs.made) == len(LISTS) + 1


def test_steps_and_evaluations_in_turn_never_reach_the_compilers_limit() -> None:
    graphs = Graphs()
    model = small("compiled and checkpointed", graphs)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for step in range(3):
            model.train()
            features(model, step).square().mean().backward()
            with torch.no_grad():
                features(model, step)
                model.eval()
                features(model, step)
                made = len(graphs.made)
    features(model.train(), 3)
    assert len(graphs.made) == made


def test_blocks_of_towers_stages_and_the_encoder_are_found_and_of_nested_blocks_the_inner_ones() -> None:
    def counts(model: nn.Module) -> dict[str, int]:
        return {name: len(blocks) for name, blocks in block_lists(model).items()}

    stages = {f"stages.{stage}.blocks": blocks for stage, blocks in enumerate((1, 2, 4, 2))}
    assert counts(timm.create_model("test_convnext")) == stages
    towers = {"clip.transformer.resblocks": 2, "clip.visual.trunk.blocks": 4}
    assert counts(build_model(MODEL)) == towers | {"kee.layers": 1}
    inner, outer = nn.Module(), nn.Module()
    inner.blocks = nn.ModuleList([nn.Linear(2, 2)])
    outer.layers = nn.ModuleList([inner, nn.Linear(2, 2)])
    change_forward(outer, TrainConfig(activation_checkpointing="block"))
    changed = {name for name, module in outer.named_modules() if "forward" in vars(module)}
    assert changed == {"layers.0.blocks.0", "layers.1"}
