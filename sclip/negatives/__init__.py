"""Scene graph -> semantic negatives: captions of the same words and another meaning (method, section 2).

`candidates` lists the valid exchanges of a caption, best first; `natural` those that training draws from, of which
`draw` takes one by (seed, epoch, key).
"""

from sclip.negatives.plan import Kind
from sclip.negatives.synthesise import VERSION, Negative, candidates, draw, natural

__all__ = ["VERSION", "Kind", "Negative", "candidates", "draw", "natural"]
