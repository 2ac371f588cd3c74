"""Random features and batches for the tests of the loss, and the cases of rows that they share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DIM = 8
NEGATIVES = 2
FEATURES = ("image_features", "text_features", "negative_features", "positive_features")

Tensors = dict[str, Tensor]


def features_of(rows: int, seed: int = 0, scale: float = 10.0) -> Tensors:
    """Return random unit features, so close to each other that some hinges are active and some are not."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(rows, DIM, generator=generator)
    image, text, positive, *negatives = (
        F.normalize(common + torch.randn(rows, DIM, generator=generator), dim=1) for _ in range(3 + NEGATIVES)
    )
    values = (image, text, torch.stack(negatives, dim=1), positive[:, None])
    features = dict(zip(FEATURES, values, strict=True))
    return with_gradients(features | {"logit_scale": torch.tensor(scale)})


def with_gradients(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}


def batch_of(
    image: list[int], valid: list[bool] | None = None, has_negative: list[bool] | None = None
) -> Tensors:
    """Return the columns of rows. Even rows with a negative have two; two rows in three have a positive."""
    first = torch.tensor(has_negative if has_negative is not None else [True] * len(image))
    return {
        "has_positive": torch.arange(len(image)) % 3 < 2,
        "image_digest": torch.tensor(image),
        "valid": torch.tensor(valid if valid is not None else [True] * len(image)),
        "has_negative": torch.stack([first, first & (torch.arange(len(image)) % 2 == 0)], dim=1),
    }


def only(rows: Tensor, tensors: Tensors) -> Tensors:
    return {name: tensor[rows] if tensor.ndim else tensor for name, tensor in tensors.items()}


def gradients(loss: Tensor, features: Tensors) -> Tensors:
    names = list(features)
    return dict(zip(names, torch.autograd.grad(loss, [features[name] for name in names]), strict=True))


CASES = {
    "all valid": batch_of(list(range(8))),
    "uneven valid rows": batch_of(list(range(8)), [True] * 5 + [False] * 3, [True, False] + [True] * 6),
    "none valid on the second rank": batch_of(list(range(8)), [True] * 4 + [False] * 4),
    "none valid on the first rank": batch_of(list(range(8)), [False] * 4 + [True] * 4),
    "negatives on one rank only": batch_of(list(range(8)), has_negative=[False] * 5 + [True] * 3),
    "no negatives": batch_of(list(range(8)), has_negative=[False] * 8),
    "one image on both ranks": batch_of([0, 1, 2, 3, 1, 1, 4, 5]),
    "none valid": batch_of(list(range(8)), [False] * 8),
}
"""Global batches of eight rows, four for each of two ranks."""
