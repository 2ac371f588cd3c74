"""Show scene graphs, negatives, whole corpora and evaluations to people: in the terminal and as pages.

A page is one file without scripts or network access. It supports light and dark mode and fits a phone.
"""

from sclip.report.corpus import CorpusStatistics, write

__all__ = ["CorpusStatistics", "write"]
