"""KDD Cup 2012 track 2: counts of clicks and impressions become weighted examples."""

from __future__ import annotations

from streaming.adapter import split_counts
from streaming.formats.block import RawBlock


def reshape(block: RawBlock) -> RawBlock:
    """Splits every row into its clicked and its unclicked part."""
    return split_counts(block, "clicks", "impressions")
