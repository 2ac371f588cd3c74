"""Scene graph -> semantic negatives: captions of the same words and another meaning (method, section 2).

`candidates` lists every valid exchange of a caption, best first; `draw` takes one by (seed, epoch, key).
"""

from sclip.negatives.synthesise import VERSION, Kind, Negative, candidates, draw

__all__ = ["VERSION", "Kind", "Negative", "candidates", "draw"]
