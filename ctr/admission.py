"""Which ids have a row of their own: admission after some occurrences, expiry after silence.

Ids that are not admitted share one row per feature. Admission and expiry are decided from the
state before the batch, in training as in serving, and the state is part of the learner, hence of
checkpoints and exports.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from ctr.encoding import Encoder
from ctr.hashing import ids as id64s
from ctr.hashing import to_rows
from ctr.table import Table

_NEVER = np.iinfo(np.int64).max // 2
#: What the shared row of a feature is hashed from; no token of a log holds a NUL character.
_RARE = "\0rare"


def wants_admission(encoder: Encoder) -> bool:
    """Returns True if some feature declares an admission threshold or an expiry."""
    return any(s.feature.admission > 1 or s.feature.expiry_s > 0 for s in encoder.layout.slots)


class Admission(tf.Module):
    """Occurrences and last sight of every table row.

    Args:
        encoder: Encoder of the learner; its schema declares thresholds and expiry per feature.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(name="admission")
        slots = encoder.layout.slots
        widths = [slot.stop - slot.start for slot in slots]
        rare = id64s(pa.array([_RARE]))
        rows = [to_rows(rare, encoder.salts[s.feature.name], encoder.n_rows)[0] for s in slots]
        expiry = [round(s.feature.expiry_s * 1e6) or _NEVER for s in slots]
        self._features = [s.feature for s in slots]
        self._feature_of = np.repeat(np.arange(len(slots)), widths).astype(np.int32)
        self._needed_by_feature = np.array([s.feature.admission - 1 for s in slots], np.int32)
        self._expiry_by_feature = np.array(expiry, np.int64)
        self._needed = np.repeat(self._needed_by_feature, widths)
        self._expiry = np.repeat(self._expiry_by_feature, widths)
        self._rare = np.repeat(rows, widths).astype(np.int32)
        self.count = tf.Variable(tf.zeros([encoder.n_rows], tf.int32), name="count")
        self.last_us = tf.Variable(tf.zeros([encoder.n_rows], tf.int64), name="last_us")
        self.now_us = tf.Variable(tf.zeros([], tf.int64), name="now_us")
        self.owner = tf.Variable(tf.zeros([encoder.n_rows], tf.int32), name="owner")
        # Occurrences, those that shared a row, and returns of expired ids; by feature.
        self.tally = tf.Variable(tf.zeros([3, len(slots)], tf.int64), name="tally")

    def __call__(self, ids: tf.Tensor, time_us: tf.Tensor | None = None) -> tf.Tensor:
        """Returns ``ids`` int32[B, S] with the shared row in place of ids without a row.

        Args:
            ids: int32[B, S]; 0 (padding) stays 0.
            time_us: Event times int64[B]; without them (in serving) the newest one learned.
        """
        now = self.now_us.read_value() if time_us is None else time_us[:, None]
        return tf.where(self._admits(ids, now) | (ids == 0), ids, self._rare)

    def observe(self, ids: tf.Tensor, weights: tf.Tensor, time_us: tf.Tensor, table: Table) -> None:
        """Counts the occurrences of a batch and clears the rows of ids that come back expired.

        Args:
            ids: int32[B, S], before admission.
            weights: float32[B]; rows of weight 0 do not count.
            time_us: int64[B].
            table: Where expired rows are cleared.
        """
        real = (weights > 0.0)[:, None] & (ids > 0)
        shared = real & ~self._admits(ids, time_us[:, None])
        expired = real & self._has_expired(ids, time_us[:, None])
        self._tally([real, shared, expired])
        # Row 0 stands in for "nothing": it is padding, so clearing it changes no prediction.
        cleared = tf.reshape(tf.where(expired, ids, 0), [-1])
        table.clear(cleared)
        for state in (self.count, self.owner):
            state.scatter_update(tf.IndexedSlices(tf.zeros_like(cleared), cleared))
        seen = tf.reshape(tf.where(real, ids, 0), [-1])
        self.count.scatter_add(tf.IndexedSlices(tf.ones_like(seen), seen))
        # A row that two features hash to counts for the later one, whoever came last.
        features = tf.reshape(tf.broadcast_to(self._feature_of + 1, ids.shape), [-1])
        self.owner.scatter_max(tf.IndexedSlices(features, seen))
        times = tf.reshape(tf.broadcast_to(time_us[:, None], ids.shape), [-1])
        self.last_us.scatter_max(tf.IndexedSlices(times, seen))
        newest = tf.reduce_max(tf.where(weights > 0.0, time_us, 0))
        self.now_us.assign(tf.maximum(self.now_us, newest))

    def usage(self) -> dict[str, dict[str, int]]:
        """Returns for each feature that declares admission or expiry how its ids use the table.

        ``admitted``, ``waiting`` (seen too rarely yet) and ``expired`` (silent for too long) are
        table rows now; ``occurrences``, those that ``shared`` the row of the unknown, and
        ``returns`` of expired ids, whose rows were cleared, are counts since the start.
        """
        count, owner = self.count.numpy()[1:], self.owner.numpy()[1:]
        silent = int(self.now_us) - self.last_us.numpy()[1:]
        told = {}
        for k, feature in enumerate(self._features):
            if feature.admission <= 1 and feature.expiry_s <= 0:
                continue
            own = (owner == k + 1) & (count > 0)
            expired = own & (silent > self._expiry_by_feature[k])
            waiting = own & ~expired & (count < self._needed_by_feature[k])
            occurrences, shared, returns = self.tally.numpy()[:, k].tolist()
            told[feature.name] = {
                "admitted": int((own & ~expired & ~waiting).sum()),
                "waiting": int(waiting.sum()),
                "expired": int(expired.sum()),
                "occurrences": occurrences,
                "shared": shared,
                "returns": returns,
            }
        return told

    def _admits(self, ids: tf.Tensor, now_us: tf.Tensor) -> tf.Tensor:
        return (tf.gather(self.count, ids) >= self._needed) & ~self._has_expired(ids, now_us)

    def _has_expired(self, ids: tf.Tensor, now_us: tf.Tensor) -> tf.Tensor:
        seen = tf.gather(self.count, ids) > 0
        return seen & (now_us - tf.gather(self.last_us, ids) > self._expiry)

    def _tally(self, masks: Sequence[tf.Tensor]) -> None:
        by_slot = tf.stack([tf.math.count_nonzero(mask, axis=0) for mask in masks])
        # As a product, because slots of one feature lie side by side in no fixed number.
        member = tf.one_hot(self._feature_of, len(self._features), dtype=tf.int64)
        self.tally.assign_add(tf.reduce_sum(by_slot[:, :, None] * member, axis=1))
