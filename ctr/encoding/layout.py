"""Which feature fills which id slot and which number of an encoded example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ctr.schema import Feature, Schema


class Slot(NamedTuple):
    """The id slots ``start .. stop - 1`` of one feature."""

    feature: Feature
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The places of all features: ids int32[B, n_slots] and numeric float32[B, len(numeric)].

    Attributes:
        slots: One entry per feature with ids: categorical, binned and crossed features first, one
            slot each, then the bags with ``max_length`` slots each; both in schema order.
        numeric: Unbinned numeric features, in schema order.
    """

    slots: tuple[Slot, ...]
    numeric: tuple[Feature, ...]

    @property
    def plain(self) -> tuple[Slot, ...]:
        """The one-slot features; they fill the slots ``0 .. n_plain - 1``."""
        return tuple(slot for slot in self.slots if slot.feature.kind != "bag")

    @property
    def bags(self) -> tuple[Slot, ...]:
        """The bags; unused slots of a bag hold row 0."""
        return tuple(slot for slot in self.slots if slot.feature.kind == "bag")

    @property
    def n_slots(self) -> int:
        """Id columns."""
        return self.slots[-1].stop if self.slots else 0

    @property
    def n_features(self) -> int:
        """Features with ids; a model sees one pooled vector for each."""
        return len(self.slots)

    @property
    def n_plain(self) -> int:
        """Id columns before the first bag."""
        return len(self.plain)


def layout_of(schema: Schema) -> Layout:
    """Lays out the features of a schema."""
    hashed = [feature for feature in schema.features if feature.hashed]
    ordered = [f for f in hashed if f.kind != "bag"] + [f for f in hashed if f.kind == "bag"]
    slots = []
    start = 0
    for feature in ordered:
        slots.append(Slot(feature, start, start + feature.n_slots))
        start += feature.n_slots
    numeric = tuple(feature for feature in schema.features if not feature.hashed)
    return Layout(tuple(slots), numeric)
