"""Write a model as ONNX files for other runtimes, and check each file's outputs in onnxruntime against the model's.

image.onnx   pixel_values -> image_embeds
text.onnx    input_ids -> text_embeds, without knowledge: E_CLIP
model.onnx   pixel_values, input_ids, triples -> image_embeds, text_embeds with knowledge, logits_per_image

Without a knowledge encoder, model.onnx takes no triples. Callers may pass any number of images and any number of
texts. Weights above ONNX's limit of 2 GB per file are stored in a second file (`.onnx.data`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclip.model.architecture import ModelError, image_size
from sclip.model.processor_files import write_processor
from sclip.model.structure_clip import StructureCLIP
from sclip.model.tokenizer import Tokenizer

__all__ = ["OPSET", "TOLERANCE", "Graph", "graphs", "write_onnx"]

OPSET = 20  # the first with a GELU operator
TOLERANCE = 1e-4
"""Largest allowed difference between file and model, per feature component or logit divided by the scale."""

_CAPTIONS = ("a small red circle to the left of a blue square", "an astronaut rides a horse", "dogs")
_TRIPLES = (
    (("circle", "left of", "square"), ("small", "is", "circle"), ("red", "is", "circle")),
    (("astronaut", "ride", "horse"),),
    (),
)
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


class _Image(nn.Module):
    def __init__(self, model: StructureCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return (F.normalize(self.model.clip.encode_image(pixel_values, normalize=False).float(), dim=-1),)


class _Text(nn.Module):
    def __init__(self, model: StructureCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        return (self.model.encode_text(input_ids),)


class _Whole(_Image):
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, input_ids: Tensor, triples: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        (image,) = super().forward(pixel_values)
        text = self.model.encode_text(input_ids, triples)
        logits = self.model.logit_scale() * image @ text.T
        return image, text, logits if self.model.logit_bias is None else logits + self.model.logit_bias()


@dataclass(frozen=True)
class Graph:
    """One ONNX file: the module that it holds, and an example of each input by name."""

    file: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    def axes(self, name: str) -> list[str | int]:
        """Return the shape of an input; its first size is variable and named "images" or "texts"."""
        return ["images" if name == "pixel_values" else "texts", *self.inputs[name].shape[1:]]


def graphs(model: StructureCLIP) -> list[Graph]:
    """Return the files to write, each with three rows of example inputs: float32 pixels, int64 ids."""
    size, tokenizer = image_size(model.config.name), Tokenizer(model.config)
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = {"pixel_values": pixels}
    texts = {"input_ids": torch.from_numpy(tokenizer.text(_CAPTIONS)).long()}
    triples = {"triples": torch.from_numpy(tokenizer.triples(_TRIPLES)).long()} if model.kee else {}
    return [
        Graph("image.onnx", _Image(model), images, ("image_embeds",)),
        Graph("text.onnx", _Text(model), texts, ("text_embeds",)),
        Graph(
            "model.onnx",
            _Whole(model),
            images | texts | triples,
            ("image_embeds", "text_embeds", "logits_per_image"),
        ),
    ]


def write_onnx(model: StructureCLIP, directory: str | Path) -> float:
    """Write the ONNX and processor files into an existing folder; return the largest difference from the model.

    Raises ModelError if a package or an operator of the opset is missing, or the difference exceeds `TOLERANCE`.
    """
    if missing := [package for package in _NEEDED if importlib.util.find_spec(package) is None]:
        raise ModelError(f"--to onnx: {', '.join(missing)} not installed: pip install 'sclip[export]'")
    directory, largest = Path(directory), 0.0
    model.eval()
    for graph in graphs(model):
        _write(graph, directory / graph.file, model.config.name)
        for rows in (1, 3):
            largest = max(
                largest, _difference(graph, directory / graph.file, rows, model.logit_scale().item())
            )
    if not largest <= TOLERANCE:
        raise ModelError(
            f"{model.config.name}: outputs of onnxruntime differ by {largest:.1e}, more than {TOLERANCE:g}; "
            "keep the model in its own format"
        )
    write_processor(model, directory)
    return largest


def _write(graph: Graph, file: Path, name: str) -> None:
    axes = {way: torch.export.Dim(way) for way in ("images", "texts")}
    shapes = tuple({0: axes[str(graph.axes(name)[0])]} for name in graph.inputs)
    try:
        with _quietly():
            program = torch.onnx.export(
                graph.module.eval(),
                tuple(graph.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert program is not None
            program.save(file)
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200]
        raise ModelError(f"{name}: ONNX opset {OPSET} cannot hold {file.name}: {reason}") from error


@torch.no_grad()
def _difference(graph: Graph, file: Path, rows: int, scale: float) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {name: tensor[-rows:] for name, tensor in graph.inputs.items()}
    outputs = session.run(list(graph.outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
    differences = (
        float((torch.from_numpy(output) - expected).abs().max()) / (scale if "logits" in name else 1.0)
        for name, output, expected in zip(graph.outputs, outputs, graph.module(**inputs), strict=True)
    )
    return max(differences)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter, and disable torch's fused inference path, for which ONNX has no operator."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels, fast = [logger.level for logger in loggers], torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
