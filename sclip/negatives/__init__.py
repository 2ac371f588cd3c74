"""Scene graph -> semantic negatives: captions of the same words and another meaning (method, section 2).

`candidates` lists the valid exchanges of a caption, best first; `natural` those that training draws from, of which
`draw` takes one and `draw_several` some by (seed, epoch, identity); `draw_of` takes them of a graph, and lists no more
than it needs. `sound` keeps those that parse like their caption; `drawn_in_training` does all of it for many captions.
`shuffled` is the baseline, a random swap of words. `unit_of` takes the part out of a caption that a negative falsifies
(section 10). `draw_positives` draws other wordings of captions, which keep their meaning.
"""

from sclip.negatives.drawing import VERSION, Negative, candidates, draw, draw_of, draw_several, natural
from sclip.negatives.planned_exchange import Kind
from sclip.negatives.positives import Positive, draw_positives
from sclip.negatives.shuffle import shuffled
from sclip.negatives.units import UnitPair, unit_of, units_first
from sclip.negatives.verification import drawn_in_training, sound

__all__ = [
    "VERSION", "Kind", "Negative", "Positive", "UnitPair", "candidates", "draw", "draw_of", "draw_positives",
    "draw_several", "drawn_in_training", "natural", "shuffled", "sound", "unit_of", "units_first",
]  # fmt: skip
