"""How blocks are computed: what is made again backward, what is compiled, and that nothing else changes."""

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

from sclip.config import KEEConfig, TrainConfig
from sclip.model import build_model
from sclip.model.kee import KnowledgeEncoder
from sclip.model.packing import pack
from sclip.train.transformer_blocks import block_lists, change_forward
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
    """A backend of torch.compile that runs what it gets as it is, and keeps it."""

    def __init__(self) -> None:
        self.made: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.made.append(graph)
        return graph.forward


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def small(way: str, backend: Any = "aot_eager", seed: int = 0, **train: Any) -> Any:
    return start(config_with(model=VIT, **WAYS[way], **train), seed, backend).model


def features(model: nn.Module, step: int = 0) -> Tensor:
    found = model(training_batch(step, VIT))
    names = ("image_features", "text_features", "negative_features")
    return torch.cat([found[name].flatten(0, -2) for name in names])


def backward_counts(way: str) -> Counter[str]:
    loss = features(small(way)).square().cumsum(0).mean()
    with Operations() as operations:
        loss.backward()
    return operations.counted


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


# What stays


@pytest.mark.parametrize("way", WAYS)
def test_nothing_in_the_model_gets_another_name(way: str) -> None:
    model, plain = small(way), build_model(VIT)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_the_model_computes_with_its_own_weights(way: str) -> None:
    model = small(way)
    other = copy.deepcopy(model)
    before = features(model)
    with torch.no_grad():
        for block in other.kee.layers:
            block.linear1.weight.mul_(3.0)
    torch.testing.assert_close(features(model), before)
    assert (features(other) - before).abs().max() > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_packed_captions_are_computed_as_unpacked_ones(way: str) -> None:
    model, batch = small(way), training_batch(0, VIT)
    columns = pack({name: column.numpy() for name, column in batch.items()})
    packed = model({name: torch.from_numpy(column) for name, column in columns.items()})
    torch.testing.assert_close(packed["text_features"], model(batch)["text_features"], rtol=1e-4, atol=1e-5)


# Checkpointing


def test_a_checkpointed_block_is_computed_again_as_a_whole() -> None:
    plain, again = backward_counts("plain"), backward_counts("checkpointed")
    blocks = 6
    assert again["gelu"] == plain["gelu"] + blocks
    assert again["native_layer_norm"] == plain["native_layer_norm"] + 2 * blocks
    assert again["_scaled_dot_product_flash_attention_for_cpu"] == blocks
    products = ("mm", "addmm", "bmm")
    assert sum(again[p] for p in products) >= sum(plain[p] for p in products) + 3 * blocks


def test_selective_checkpointing_computes_neither_matrix_products_nor_attention_again() -> None:
    plain, again = backward_counts("plain"), backward_counts("checkpointed selectively")
    assert again["gelu"] == plain["gelu"] + 6
    assert again["native_layer_norm"] > plain["native_layer_norm"]
    for costly in ("mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu"):
        assert again[costly] == plain[costly]


def test_selective_checkpointing_keeps_the_convolutions_of_a_convolutional_tower() -> None:
    def counts(**train: Any) -> Counter[str]:
        model = start(config_with(**train)).model
        loss = model.encode_image(training_batch(0)["image"]).cumsum(0).square().mean()
        with Operations() as operations:
            loss.backward()
        return operations.counted

    plain, selective = counts(), counts(activation_checkpointing="selective")
    whole = counts(activation_checkpointing="block")
    assert plain["convolution"] == selective["convolution"] == 0
    assert whole["convolution"] == len(build_model(MODEL).clip.visual.trunk.blocks)
    norms = "native_layer_norm"
    assert selective[norms] == whole[norms] > plain[norms]


# Compiling


def test_every_list_of_blocks_is_compiled_once_for_all_its_blocks() -> None:
    graphs = Graphs()
    model = small("compiled", graphs)
    assert block_lists(model).keys() == LISTS
    features(model)
    assert len(graphs.made) == len(LISTS)
    for graph in graphs.made:
        assert any("attention" in str(node.target) for node in graph.graph.nodes)
    features(model, step=1)
    assert len(graphs.made) == len(LISTS)


def test_captions_of_other_lengths_are_compiled_for_once_more_and_no_further() -> None:
    graphs = Graphs()
    model = small("compiled", graphs)
    for length in range(5, 16):
        mask = torch.full((length, length), -torch.inf).triu(1)
        model.clip.transformer(torch.randn(7, length, 16, requires_grad=True), attn_mask=mask)
    assert len(graphs.made) == 2


@pytest.mark.parametrize("way", ["compiled", "compiled and checkpointed"])
def test_steps_and_evaluations_in_turn_never_reach_the_compilers_limit(way: str) -> None:
    graphs = Graphs()
    model = small(way, graphs)
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


def test_the_default_backend_compiles_a_block() -> None:
    table = nn.Embedding(49408, 8)
    torch.manual_seed(0)
    encoder = KnowledgeEncoder(table, 8, KEEConfig(layers=1, heads=2))
    triples = torch.randint(-1, 49000, (3, 2, 3, 4))
    expected, _ = encoder(triples, table.weight)
    change_forward(encoder, TrainConfig(compile=True))
    found, _ = encoder(triples, table.weight)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(expected.square().sum(), encoder.layers[0].linear1.weight)
    (again,) = torch.autograd.grad(found.square().sum(), encoder.layers[0].linear1.weight)
    torch.testing.assert_close(again, gradient)
    assert torch._dynamo.utils.counters["inductor"]


# Lists


def test_blocks_are_found_in_the_stages_of_a_convolutional_tower() -> None:
    lists = block_lists(timm.create_model("test_convnext"))
    assert {name: len(blocks) for name, blocks in lists.items()} == {
        f"stages.{stage}.blocks": blocks for stage, blocks in enumerate((1, 2, 4, 2))
    }


def test_blocks_of_towers_and_encoder_are_found() -> None:
    lists = block_lists(build_model(MODEL))
    assert {name: len(blocks) for name, blocks in lists.items()} == {
        "kee.layers": 1,
        "clip.transformer.resblocks": 2,
        "clip.visual.trunk.blocks": 4,
    }


def test_of_blocks_in_blocks_only_the_inner_ones_are_changed() -> None:
    inner = nn.Module()
    inner.blocks = nn.ModuleList([nn.Linear(2, 2)])
    outer = nn.Module()
    outer.layers = nn.ModuleList([inner, nn.Linear(2, 2)])
    change_forward(outer, TrainConfig(activation_checkpointing="block"))
    changed = {name for name, module in outer.named_modules() if "forward" in vars(module)}
    assert changed == {"layers.0.blocks.0", "layers.1"}
