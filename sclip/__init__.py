"""Structure-CLIP pretraining on Ray: shards in, a registered model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclip.scorer import Scorer

__version__ = "0.1.0"


def load(directory: str | Path, device: str = "cpu") -> Scorer:
    """Return the `Scorer` of an exported model directory: `encode_image`, `encode_text`, `score`.

    The import is inside, so that the packages that need neither torch nor spaCy stay free of them.
    """
    from sclip.scorer import Scorer

    return Scorer.load(Path(directory).expanduser(), device)
