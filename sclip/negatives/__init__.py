"""Make negatives, which change a caption's meaning, and positives, which keep it, from scene graphs.

`candidates` lists the valid negatives of a caption, and `natural` lists the ones that training draws from. `draw_of`
draws some of them by seed, epoch and sample identity. `sound` keeps those that parse like their caption.
`drawn_in_training` does all of this for many captions.
"""

from sclip.negatives.drawing import VERSION, Negative, candidates, draw, draw_of, draw_several, natural
from sclip.negatives.half_truths import HalfTruth, half_truth_of
from sclip.negatives.planned_exchange import Kind
from sclip.negatives.positives import Positive, draw_positives
from sclip.negatives.shuffle import shuffled
from sclip.negatives.units import UnitPair, unit_of, units_first
from sclip.negatives.verification import drawn_in_training, sound

__all__ = [
    "VERSION", "HalfTruth", "Kind", "Negative", "Positive", "UnitPair", "candidates", "draw", "draw_of",
    "draw_positives", "draw_several", "drawn_in_training", "half_truth_of", "natural", "shuffled", "sound", "unit_of",
    "units_first",
]  # fmt: skip
