"""Interpolate two models of one architecture: weights (1 - a) * start + a * trained.

This is WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). A blend recovers much of what
the model forgot in training, and keeps much of what it learned.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from sclip.config import KEEConfig
from sclip.inference.scorer import Scorer
from sclip.model import ModelError

__all__ = ["blended", "check"]

_ONLY_TRAINED = {"kee.": "knowledge encoder, whose weight lambda grows with a", "logit_bias.": "logit bias"}
_NORMALISATION = ("image_mean", "image_inverse_std")


def blended(start: Scorer, trained: Scorer, a: float) -> Scorer:
    """Return the blend of two models. `a` = 0 returns `start` itself, `a` = 1 `trained` itself.

    Parts that `start` lacks come from `trained`. If `start` has no knowledge encoder, the weight lambda of the encoder
    is `a` times that of `trained`.

    Raises ModelError if `a` is not in 0..1, or if `check` refuses the models.
    """
    if not 0 <= a <= 1:
        raise ModelError(f"a={a:g}: must be from 0 (the start) to 1 (the trained model)")
    if a in (0, 1):
        return trained if a else start
    check(start, trained)
    start_state = start.model.state_dict()
    model = copy.deepcopy(trained.model)
    for name, tensor in model.state_dict().items():  # of the logit scale, this holds the logarithm
        if name in start_state and tensor.is_floating_point() and not torch.equal(tensor, start_state[name]):
            tensor.lerp_(start_state[name], 1 - a)
    if model.kee is not None:
        first = start.model.config.kee.weight if start.model.kee is not None else 0.0
        kee = model.config.kee
        kee = dataclasses.replace(kee, weight=first + a * (kee.weight - first))
        model.config = dataclasses.replace(model.config, kee=kee)
    return trained.with_model(model)


def check(start: Scorer, trained: Scorer) -> list[str]:
    """Return the names of parts that only `trained` has. Raises ModelError if the models cannot be blended."""
    one, other = start.model, trained.model
    ours, theirs = one.state_dict(), other.state_dict()
    lacking = tuple(part for part in _ONLY_TRAINED if not any(name.startswith(part) for name in ours))
    added = {name for name in theirs if name.startswith(lacking)}
    differ = [
        f"{name}: {_tensor_text(ours.get(name))} and {_tensor_text(theirs.get(name))}"
        for name in sorted((ours.keys() | theirs.keys()) - added)
        if _tensor_text(ours.get(name)) != _tensor_text(theirs.get(name))
        or (name in _NORMALISATION and not torch.equal(ours[name], theirs[name]))
    ]
    names = [model.config.name for model in (one, other)]
    if names[0] != names[1]:
        differ.insert(0, f"architecture: {names[0]} and {names[1]}")
    if one.kee and other.kee and _form(one.config.kee) != _form(other.config.kee):
        differ.append(f"model.kee: {one.config.kee} and {other.config.kee}")
    if differ:
        more = f"; {len(differ) - 3} more" if len(differ) > 3 else ""
        raise ModelError(f"start and trained model cannot be blended: {'; '.join(differ[:3])}{more}")
    return [label for part, label in _ONLY_TRAINED.items() if any(name.startswith(part) for name in added)]


def _tensor_text(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _form(config: KEEConfig) -> KEEConfig:
    """Return the encoder settings that two models must share; `weight` and `on_negatives` may differ."""
    return dataclasses.replace(config, weight=0.0, on_negatives=True)
