"""Scene graphs, negatives, whole corpora and evaluations as people look at them: in the terminal and as pages.

A page is one file: no script, no network, light and dark, as wide as a phone. What captions hold is text there,
whatever it is.
"""

from sclip.report.corpus import CorpusStatistics, write

__all__ = ["CorpusStatistics", "write"]
