"""Samplers: which examples a learner trains on."""

from __future__ import annotations

from dataclasses import dataclass

from ctr.api import Batch


@dataclass(frozen=True)
class KeepAll:
    """Trains on every example with the weight it came with."""

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch unchanged."""
        return batch
