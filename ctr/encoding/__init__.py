"""From raw columns to what the model reads: embedding rows and numbers.

``Encoder`` is the only encoder: ingest, training and replay run it on Arrow batches, an exported
model runs its TensorFlow twin (``ctr.encoding.graph``) on raw strings, and both give equal bits.
"""

from ctr.encoding.encoder import Encoded, Encoder
from ctr.encoding.layout import Layout, Slot

__all__ = ["Encoded", "Encoder", "Layout", "Slot"]
