"""Views of impressions that need no label: recombined, masked and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ctr.api import Features
from ctr.encoding import Layout
from ctr.errors import ModuleError, nearest

#: What can be done to an impression.
VIEWS = ("none", "recombine", "mask", "mixup")


class Group(NamedTuple):
    """Fields that stay together when impressions are recombined.

    Attributes:
        slots: Their id slots.
        numbers: Their numeric features.
    """

    slots: tuple[int, ...]
    numbers: tuple[int, ...]


def field_groups(layout: Layout, named: Sequence[Sequence[str]]) -> list[Group]:
    """Splits the features of a layout into groups.

    Features that read one column belong together, a cross with its parts, and so do those that a
    name list holds together; every other feature is a group of its own.

    Args:
        layout: Encoded features.
        named: Lists of names of features.

    Raises:
        ModuleError: a name is not known, or everything belongs together.
    """
    features = [slot.feature for slot in layout.slots] + list(layout.numeric)
    names = [feature.name for feature in features]
    owner = {name: name for name in names}

    def top(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    together = [list(part) for part in named]
    together += [[f.name, *f.cross] for f in features if f.cross]
    columns: dict[str, list[str]] = {}
    for feature in features:
        if not feature.cross:
            columns.setdefault(feature.column or feature.name, []).append(feature.name)
    for part in [*together, *columns.values()]:
        for name in part:
            if name not in owner:
                raise ModuleError(
                    f"patient_distillation: `groups` names {name!r}, which is no feature: "
                    f"{nearest(name, names)}"
                )
            owner[top(name)] = top(part[0])
    found: dict[str, Group] = {}
    for slot in layout.slots:
        group = found.get(top(slot.feature.name), Group((), ()))
        slots = (*group.slots, *range(slot.start, slot.stop))
        found[top(slot.feature.name)] = group._replace(slots=slots)
    for place, feature in enumerate(layout.numeric):
        group = found.get(top(feature.name), Group((), ()))
        found[top(feature.name)] = group._replace(numbers=(*group.numbers, place))
    if len(found) < 2:
        raise ModuleError(
            "patient_distillation: all features belong together (by crosses, columns or "
            '`groups`), so impressions cannot be recombined. Use view = "mask" or "mixup".'
        )
    return list(found.values())


def recombine(
    ids: tf.Tensor, numeric: tf.Tensor, groups: Sequence[Group], shifts: tf.Tensor
) -> tf.Tensor:
    """Returns impressions whose groups of fields come from different rows.

    Each group is rolled along the batch by its own shift, so every field keeps exactly the values
    it has in the batch, and a row's group stays whole.

    Args:
        ids: int32[B, S].
        numeric: float32[B, M].
        groups: Groups of fields.
        shifts: int32[G].

    Returns:
        ids and numeric, recombined.
    """
    n = ids.shape[0]
    at = (tf.range(n)[:, None] + shifts[None, :]) % n
    slot_group, number_group = [0] * ids.shape[1], [0] * numeric.shape[1]
    for number, group in enumerate(groups):
        for slot in group.slots:
            slot_group[slot] = number
        for place in group.numbers:
            number_group[place] = number

    def rolled(values: tf.Tensor, of: list[int]) -> tf.Tensor:
        if not of:
            return values
        rows = tf.gather(at, tf.constant(of), axis=1)
        columns = tf.broadcast_to(tf.range(len(of))[None, :], tf.shape(rows))
        return tf.gather_nd(values, tf.stack([rows, columns], axis=2))

    return rolled(ids, slot_group), rolled(numeric, number_group)


def mask(features: Features, keep: tf.Tensor) -> Features:
    """Returns features of which some fields are missing.

    Args:
        features: As looked up.
        keep: float32[B, F + M], 1 to keep a field and 0 to hide it.
    """
    n = features.vectors.shape[1]
    fields, numbers = keep[:, :n, None], keep[:, n:]
    return features._replace(
        vectors=features.vectors * fields,
        linear=features.linear * fields,
        numeric=features.numeric * numbers,
    )


def mixup(features: Features, share: tf.Tensor) -> Features:
    """Returns ``a x + (1 - a) roll(x)`` in embedding space, where ids can be averaged.

    Teacher and student have their own columns of one table, so both mix the same pairs by the
    same share, each in its own space.

    Args:
        features: As looked up.
        share: float32 scalar; ``a`` is the larger of it and its complement.
    """
    a = tf.maximum(share, 1.0 - share)

    def mixed(x: tf.Tensor) -> tf.Tensor:
        return a * x + (1.0 - a) * tf.roll(x, 1, axis=0)

    return features._replace(
        vectors=mixed(features.vectors),
        linear=mixed(features.linear),
        numeric=mixed(features.numeric),
    )
