"""Write the model card of a converted model: what it is, how to call it, what it was trained and measured on.

The card is Markdown with the header of Hugging Face's hub. The license of weights depends on their data and
starting weights. No config states this license, so the card asks the user to name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sclip.config import Config, ModelConfig
from sclip.config.loader import flatten, to_tree
from sclip.evaluate.result import Evaluation

__all__ = ["CardModel", "model_card"]

_LEARNED = ("model.", "loss.", "data.", "train.", "run.seed", "run.init_from")
"""Prefixes of the config keys that decide what the model learns."""
_DATA = ("data.shards", "data.weights", "model.pretrained", "run.init_from")

_PROCESSOR = """\
from PIL import Image
from transformers import CLIPProcessor

processor = CLIPProcessor.from_pretrained("FOLDER")
captions, images = ["a man riding a horse"], [Image.open("photo.jpg")]
inputs = processor(
    text=captions, images=images, return_tensors="pt", padding="max_length", max_length=LENGTH, truncation=True
)
"""
_OWN_TOKENS = """\
import sclip
from PIL import Image
from transformers import CLIPImageProcessor

images = [Image.open("photo.jpg")]
inputs = dict(CLIPImageProcessor.from_pretrained("FOLDER")(images=images, return_tensors="np"))
inputs["input_ids"] = sclip.load(SOURCE).tokens(["a man riding a horse"])[0].numpy()
"""
_TRANSFORMERS = """
model = CLIPModel.from_pretrained("FOLDER").eval()
model(**inputs).logits_per_image
"""
_ONNX = """
text = onnxruntime.InferenceSession("FOLDER/text.onnx")
text.run(["text_embeds"], {"input_ids": inputs["input_ids"]})
"""


@dataclass(frozen=True)
class CardModel:
    """Sizes of a model that its config sets or its architecture implies."""

    config: ModelConfig
    image_size: int
    context_length: int
    """Number of tokens of a caption, including padding."""
    width: int
    """Width of a feature."""
    has_bpe: bool
    """Whether the tokenizer is CLIP's BPE. Then `CLIPProcessor` of transformers tokenizes captions as in training."""


def model_card(
    source: str,
    form: Literal["transformers", "onnx"],
    model: CardModel,
    settings: Mapping[str, str],
    evaluation: Evaluation | None,
    version: str,
) -> str:
    """Return the content of README.md.

    `source` is the path, URI or name from which the user opened the model, without credentials. `settings` is the
    config of the model's run by dotted key; empty if none is recorded.
    """
    tags = ["clip", "structure-clip", *(["onnx"] if form == "onnx" else [])]
    header = [
        "---",
        f"library_name: {form}",
        "pipeline_tag: zero-shot-image-classification",
        "license: unknown",
    ]
    header += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    sections = {
        "Use": _use(source, form, model),
        "Inputs and outputs": _table_of_inputs(model) if form == "onnx" else "",
        "The knowledge encoder": _knowledge(form, model.config),
        "Licence": "The licence of these weights follows from the data and the weights that they were trained from, "
        "which sclip does not know: name it here and in the header before you publish them. sclip itself is under the "
        "MIT licence.",
        "Data": _data(settings),
        "Recipe": _recipe(settings),
        "Scores": _scores(form, model.config, evaluation),
    }
    first = f"# {model.config.name}\n\nAn image-text model, written by sclip {version} from `{source}`."
    if settings or model.config.kee.enabled:
        first += " sclip trains Structure-CLIP (Huang et al., AAAI 2024, arXiv 2305.06152)."
    texts = [f"## {title}\n\n{text.rstrip()}" for title, text in sections.items() if text]
    return "\n\n".join(["\n".join(header), first, *texts]) + "\n"


def _use(source: str, form: str, model: CardModel) -> str:
    has_knowledge = form == "onnx" and model.config.kee.enabled
    code = _PROCESSOR if model.has_bpe else _OWN_TOKENS
    if form == "transformers":
        code = code.replace("CLIPProcessor\n", "CLIPModel, CLIPProcessor\n", 1) + _TRANSFORMERS
    else:
        names = ["onnxruntime", *(["sclip"] if has_knowledge and model.has_bpe else [])]
        code = "".join(f"import {name}\n" for name in names) + code.replace('"pt"', '"np"') + _ONNX
    if has_knowledge:
        captions = "captions" if model.has_bpe else '["a man riding a horse"]'
        code += (
            f"\ninput_ids, triples = sclip.load(SOURCE).tokens({captions})\n"
            'whole = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
            'ids = {"input_ids": input_ids.numpy(), "triples": triples.numpy()}\n'
            'whole.run(["logits_per_image"], {"pixel_values": inputs["pixel_values"]} | ids)\n'
        )
    code = code.replace("LENGTH", str(model.context_length)).replace("SOURCE", repr(source))
    caveat = "; and it leaves HTML entities and broken Unicode in captions, which sclip repairs"
    return (
        f"```python\n{code}```\n\nThis processor resizes a picture and then crops it, where sclip crops first "
        f"and decodes large JPEGs at a reduced size{caveat if model.has_bpe else ''}. Features of such inputs differ "
        "slightly."
    )


def _table_of_inputs(model: CardModel) -> str:
    size, kee = model.image_size, model.config.kee
    pixels, ids = (
        f"`pixel_values` float32 [images, 3, {size}, {size}]",
        f"`input_ids` int64 [texts, {model.context_length}]",
    )
    triples = f", `triples` int64 [texts, {kee.triples}, 3, {kee.phrase_tokens}]" if kee.enabled else ""
    image, text = (f"`{name}_embeds` float32 [{name}s, {model.width}]" for name in ("image", "text"))
    explained = (
        "\n\n`triples` holds the tokens of head, relation and tail of each triple of a caption's scene graph, without "
        "start and end tokens, -1 where there is none; a caption without triples has -1 everywhere."
        if kee.enabled
        else ""
    )
    return (
        "| file | inputs | outputs |\n| --- | --- | --- |\n"
        f"| `image.onnx` | {pixels} | {image} |\n"
        f"| `text.onnx` | {ids} | {text}, without knowledge |\n"
        f"| `model.onnx` | {pixels}, {ids}{triples} | {image}, {text}, `logits_per_image` float32 [images, texts] |\n\n"
        "The numbers of images and texts are free. Features have unit length. `preprocessor_config.json` holds the "
        "preprocessing of pictures (RGB, shorter side resized, centre crop, normalised)"
        + (
            f", `vocab.json` and `merges.txt` the tokenizer: start token, at most {model.context_length - 2} tokens, "
            "end token, then any padding."
            if model.has_bpe
            else "; captions are tokenised by sclip, which cleans and pads them as in training."
        )
        + explained
    )


def _knowledge(form: str, config: ModelConfig) -> str:
    if not config.kee.enabled:
        return ""
    text = (
        "sclip parses a caption into a scene graph and gives its triples, such as (astronaut, ride, horse), to a "
        f"Transformer of {config.kee.layers} layers. The feature that was trained is unit(E_CLIP + "
        f"{config.kee.weight:g} E_KE): exchanging subject and object changes it. "
    )
    if form == "transformers":
        return (
            text
            + "**This folder lacks it**: `CLIPModel` has no place for it, so a caption's feature is E_CLIP here. "
            "`sclip.load` and `sclip convert --to onnx` give the whole."
        )
    return text + "`model.onnx` holds it; `text.onnx` gives E_CLIP alone."


def _data(settings: Mapping[str, str]) -> str:
    named = [f"- `{key}`: `{settings[key]}`" for key in _DATA if settings.get(key) not in (None, "", "[]")]
    return "\n".join(named) or "The source of these weights does not record it."


def _recipe(settings: Mapping[str, str]) -> str:
    if not settings:
        return "The source of these weights does not record it."
    defaults = {key: str(value) for key, value in flatten(to_tree(Config())).items()}
    lines = [
        f"{key}: {value}"
        for key, value in settings.items()
        if key.startswith(_LEARNED) and value != defaults.get(key)
    ]
    return "Keys of the run's config that differ from sclip's defaults:\n\n```\n" + "\n".join(lines) + "\n```"


def _scores(form: str, config: ModelConfig, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "The source of these weights does not record it."
    rows = [
        f"| {result.name} | {name} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {score.chance:.3f} "
        f"| {result.counts['cases']:,} |"
        for result in evaluation.results
        for name, score in result.scores.items()
    ]
    caveat = (
        "Measured with the knowledge encoder, which this folder lacks: expect other scores from this folder.\n\n"
        if form == "transformers" and config.kee.enabled
        else ""
    )
    head = "| benchmark | score | value | 95 % interval | chance | cases |\n| --- | --- | --- | --- | --- | --- |\n"
    return caveat + head + "\n".join(rows)
