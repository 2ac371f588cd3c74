"""Captions packed without padding: where every token goes, and that the text tower's features stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from sclip.config import KEEConfig
from sclip.model import StructureCLIP, Tokenizer
from sclip.model.packing import pack
from sclip.model.towers import text_tower, unpackable
from support.small_model import CAPTIONS, END, NAME, SMALL, pictures, small_model, text_ids, triple_ids

NEGATIVES = [
    ["a brown sofa lies on a dog", "a sofa lies on a brown dog"],
    ["a horse rides an astronaut", ""],
    ["", ""],
    ["a table of tea on a wooden cup", "a cup of table on a wooden tea"],
]
TOWER: dict[str, Any] = {"width": 32, "heads": 2, "layers": 2, "vocab_size": END + 1}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(SMALL)


def batch_of(tokenizer: Tokenizer) -> dict[str, Tensor]:
    has_negative = torch.tensor([[bool(text) for text in texts] for texts in NEGATIVES])
    negative_text = torch.stack([text_ids(tokenizer, texts) for texts in NEGATIVES])
    triples = triple_ids(tokenizer)
    return {
        "image": pictures(4),
        "text": text_ids(tokenizer),
        "negative_text": negative_text.masked_fill(~has_negative[:, :, None], 0),
        "has_negative": has_negative,
        "triples": triples,
        "negative_triples": triples.flip(2)[:, None].repeat(1, 2, 1, 1, 1),
    }


def packed(batch: dict[str, Tensor], parts: int = 1) -> dict[str, Tensor]:
    columns = pack({name: column.numpy() for name, column in batch.items()}, parts)
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def ids(lengths: list[int], capacity: int) -> NDArray[np.int32]:
    """Return captions [rows, capacity] of these lengths: distinct tokens, the end token, then zeros."""
    tokens = np.zeros((len(lengths), capacity), np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = np.arange(length) + 100 * row + 1
        if length:
            tokens[row, length - 1] = END
    return tokens


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12), st.booleans())
def test_every_caption_is_packed_once_whole_and_in_order(rows: list[tuple[int, int]], halved: bool) -> None:
    parts = 2 if halved and len(rows) % 2 == 0 else 1
    text, negative = (ids([row[side] for row in rows], 20) for side in (0, 1))
    batch = {"text": text, "negative_text": negative[:, None], "image_digest": np.arange(len(rows))}
    result = pack(batch, parts)
    if "text" in result:  # packing would save nothing
        assert result.keys() == batch.keys()
        totals = [sum(map(sum, part)) for part in np.split(np.array(rows), parts)]
        assert 2 * max(totals) + 24 >= 2 * len(rows) // parts * 20
        return
    assert result.keys() == {
        "packed_text", "packed_caption", "packed_position", "text_end", "negative_end", "image_digest",
    }  # fmt: skip
    tokens, numbers, positions = (
        np.split(result[name], parts) for name in ("packed_text", "packed_caption", "packed_position")
    )
    assert tokens[0].shape[1] == 24
    share = len(rows) // parts
    for row in range(len(rows)):
        part, offset = divmod(row, share)
        ends = (result["text_end"][row], result["negative_end"][row, 0])
        for caption, end, number in zip(
            (text[row], negative[row]), ends, (offset + 1, share + offset + 1), strict=True
        ):
            length = np.count_nonzero(caption)
            assert (end == -1) == (length == 0)
            own = numbers[part] == number
            np.testing.assert_array_equal(tokens[part][own], caption[:length])
            np.testing.assert_array_equal(positions[part][own], np.arange(length))
            if length:
                line, column = divmod(end, 24)
                assert own[line, column - length + 1 : column + 1].all()
                assert own.sum() == length
    num_tokens = sum(np.count_nonzero(side) for side in (text, negative))
    assert sum((part > 0).sum() for part in numbers) == num_tokens


def test_packed_rows_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).normal(13, 4, 512).clip(5, 40).astype(int).tolist()
    columns = pack({"text": ids(lengths, 77)})
    assert columns["packed_text"].shape[1] == 80
    assert (columns["packed_caption"] > 0).mean() > 0.95


def test_rounded_row_counts_repeat_and_add_few_rows_all_of_them_empty() -> None:
    shapes: dict[bool, set[int]] = {False: set(), True: set()}
    for seed in range(8):
        random = np.random.default_rng(seed)
        text = ids(random.normal(13, 4, 2048).clip(5, 40).astype(int).tolist(), 77)
        triples = np.full((2048, 6, 3, 2), -1, np.int32)
        triples[random.random((2048, 6)) < 0.5] = 7
        exact, rounded = (
            pack({"text": text, "triples": triples}, round_rows=round_rows) for round_rows in (False, True)
        )
        for name in ("packed_text", "packed_triples"):
            rows = len(exact[name])
            assert rows <= len(rounded[name]) <= rows * 33 / 32
            np.testing.assert_array_equal(rounded[name][:rows], exact[name])
            shapes[False].add(rows)
            shapes[True].add(len(rounded[name]))
        assert not rounded["packed_caption"][len(exact["packed_caption"]) :].any()
        for name in ("text_end", "triple_slot"):
            np.testing.assert_array_equal(rounded[name], exact[name])
    assert len(shapes[True]) <= 5 < len(shapes[False])


Gradients = dict[str, Tensor]


def trained(batch: dict[str, Tensor], parts: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Gradients]:
    """Return features and gradients of a batch that is passed in parts, without features of absent negatives."""
    model = small_model().train()
    outputs = [model(part) for part in parts]
    names = [name for name in outputs[0] if name.endswith("features")]
    features = {name: torch.cat([part[name] for part in outputs]) for name in names}
    if "negative_features" in features:
        features["negative_features"] = features["negative_features"][batch["has_negative"]]
    sum(feature.cumsum(0).square().sum() for feature in features.values()).backward()
    return features, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("parts", "negatives"), [(1, False), (2, True)])
def test_a_packed_batch_has_the_features_and_gradients_of_a_padded_one(
    tokenizer: Tokenizer, parts: int, negatives: bool
) -> None:
    batch = batch_of(tokenizer)
    batch["unit_text"] = text_ids(tokenizer)[:, None].repeat(1, 2, 1)  # units, as long as their captions
    batch["unit_triples"] = batch["negative_triples"].clone()
    batch["triples"][2] = -1
    batch["negative_triples"][[0, 1], [0, 1]] = -1
    if not negatives:
        batch = {name: column for name, column in batch.items() if "negative" not in name}
    whole = packed(batch, parts)
    cut = [{name: column.chunk(parts)[k] for name, column in whole.items()} for k in range(parts)]
    (actual, gradients), (expected, expected_gradients) = trained(batch, cut), trained(batch, [batch])
    torch.testing.assert_close(actual, expected)
    assert expected_gradients["clip.positional_embedding"].any()
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize(
    ("custom", "text", "expected"),
    [
        (False, {}, True),
        (False, {"pool_type": "eos", "eos_id": END}, True),
        (True, {"pool_type": "last"}, False),
        (True, {"proj_bias": True}, True),
        (True, {"no_causal_mask": True}, False),
        (True, {"embed_cls": True}, False),
        (True, {"scale_heads": True}, False),
    ],
)
def test_a_tower_takes_packed_captions_only_if_its_features_stay_the_same(
    custom: bool, text: dict[str, Any], expected: bool, tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    image = {"image_size": 48, "patch_size": 24, "width": 32, "layers": 1, "head_width": 16}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    clip = kind(16, image, TOWER | {"context_length": tokenizer.context_length} | text)
    assert (unpackable(text_tower(clip)) == "") == expected
    if not expected:
        return
    clip.visual.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    config = SMALL.__class__(name=NAME, kee=KEEConfig(enabled=False))
    model = StructureCLIP(clip, config)
    batch = {"image": pictures(4), "text": text_ids(tokenizer, CAPTIONS)}
    torch.testing.assert_close(model(packed(batch))["text_features"], model(batch)["text_features"])
