"""The private update: clip per example, add up over many batches, add noise once, step once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ctr.errors import ModuleError
from ctr.optimizers import Optimizers
from ctr.table import Table
from ctr.update import GradientUpdate, Trace
from research_modules.dp_training.accounting import Guarantee
from research_modules.dp_training.noise import NoiseState, mixing, normal, sensitivity
from research_modules.dp_training.recording import RecordedModel, row_norms
from research_modules.dp_training.rows import contributions, split_noise

#: Weight of the newest release in the running signal-to-noise ratio.
_SNR_RATE = 0.1


@dataclass(frozen=True)
class PrivateUpdate:
    """One noisy step per ``batches`` batches.

    Attributes:
        clip: Bound on the norm of an example's gradient over all parameters.
        noise: Noise multiplier; 0 only clips.
        delta: For the report.
        epsilon: For the report; what ``noise`` gives at ``delta``.
        mechanism: ``independent`` or ``sqrt_toeplitz``.
        kept: Draws that correlated noise is made of.
        releases: Most releases of a run with correlated noise; later ones change nothing.
        rows: ``dense`` or ``adafest``.
        share: Share of the privacy budget that goes to the histogram of touched rows.
        threshold: Noisy count from which a row is moved.
        most_rows: Rows that are moved in one release at most.
        batches: Batches in the first release.
        most_batches: Bound on how far that grows.
        grow_below: Signal-to-noise ratio below which the number of batches doubles; 0 never.
        user: Categorical feature that tells users apart; empty if examples are the unit.
        per_user: Examples of a user that are learned, each in another release.
    """

    clip: float
    noise: float
    delta: float
    epsilon: float
    mechanism: str
    kept: int
    releases: int
    rows: str
    share: float
    threshold: float
    most_rows: int
    batches: int
    most_batches: int
    grow_below: float
    user: str
    per_user: int

    def build(self, model: tf.Module, table: Table, optimizers: Optimizers) -> PrivateState:
        """Creates sums, noise and optimizer slots.

        Raises:
            ModuleError: the model is not recorded.
        """
        if not isinstance(model, RecordedModel):
            raise ModuleError(
                "dp_training: another module has wrapped the model since. Put dp_training last."
            )
        return PrivateState(self, model, table, optimizers)

    def guarantee(self) -> Guarantee:
        """Returns what may be said about the released parameters."""
        unit = "user" if self.user else "example"
        return Guarantee(self.noise, self.epsilon, self.delta, unit, self.per_user)


class PrivateState(tf.Module):
    """The built form of :class:`PrivateUpdate`."""

    def __init__(
        self, config: PrivateUpdate, model: RecordedModel, table: Table, optimizers: Optimizers
    ) -> None:
        super().__init__(name="private_update")
        self._config, self._model, self._table = config, model, table
        # The plain update knows which optimizer moves which variables, and keeps their slots.
        self.plain = GradientUpdate().build(model, table, optimizers)
        groups = self.plain.variables_moved
        self._dense = [v for variables in groups for v in variables]
        n_rows = table.embedding.shape[0]
        self._widths = (table.embedding.shape[1], table.wide.shape[1])
        self._n_rows, self._n_columns = n_rows, sum(self._widths)
        self._n_dense = sum(v.shape.num_elements() for v in self._dense)
        first, second = 0.0, config.noise
        if config.rows == "adafest":
            first, second = split_noise(config.noise, config.share)
        correlated = config.mechanism == "sqrt_toeplitz"
        weights = mixing(config.kept if correlated else 1)
        larger = sensitivity(weights, config.releases) if correlated else 1.0
        scale = second * larger * config.clip
        self._moved = n_rows if config.rows == "dense" else min(config.most_rows, n_rows)
        size = self._n_dense + self._moved * self._n_columns
        self.noise = NoiseState(size, weights, scale, model.seed)
        self._histogram_noise = first
        # Without noise and sums over batches, only the rows of the batch have to be moved.
        plain = not config.noise and config.rows == "dense" and config.mechanism == "independent"
        self._direct = plain and config.batches == 1 and not config.grow_below

        def zeros(shape: list[int], dtype: tf.DType = tf.float32) -> tf.Variable:
            return tf.Variable(tf.zeros(shape, dtype), trainable=False)

        self.dense_sum = zeros([self._n_dense])
        self.row_sum = zeros([1 if self._direct else n_rows, self._n_columns])
        self.row_count = zeros([n_rows if config.rows == "adafest" else 1])
        self.waiting = zeros([], tf.int32)
        self.batches = tf.Variable(config.batches, trainable=False)
        self.release = zeros([], tf.int64)
        self.snr = zeros([])
        self.clipped, self.learned, self.dropped = (zeros([]) for _ in range(3))
        self.user_count = zeros([n_rows if config.user else 1], tf.int32)
        self.user_release = tf.Variable(-tf.ones_like(self.user_count, tf.int64), trainable=False)

    def __call__(self, trace: Trace) -> None:
        """Adds a batch's clipped gradients; steps when enough batches are in."""
        config, calls, rows = self._config, self._model.take(trace.forward), trace.features.rows
        outputs = [call.output for call in calls]
        deltas, row_gradients = trace.tape.gradient(
            trace.losses, (outputs, rows), unconnected_gradients="zero"
        )
        ids = trace.features.ids
        parameters = [
            (p, delta) for call, delta in zip(calls, deltas, strict=True) for p in call.parameters
        ]
        squares = tf.add_n([p.norms(delta) for p, delta in parameters])
        norms = tf.sqrt(squares + row_norms(ids, row_gradients))
        counted = self._admitted(trace)
        factor = counted * tf.minimum(1.0, config.clip / tf.maximum(norms, 1e-12))
        totals: dict[Any, tf.Tensor] = {}
        for call, delta in zip(calls, deltas, strict=True):
            scaled = delta * factor[:, None]
            totals |= {p.variable.ref(): p.total(scaled) for p in call.parameters}
        flat = [tf.reshape(totals[v.ref()], [-1]) for v in self._dense]
        if flat:
            self.dense_sum.assign_add(tf.concat(flat, axis=0))
        both = tf.concat(list(row_gradients), axis=2) * factor[:, None, None]
        lines = tf.reshape(both, [-1, self._n_columns])
        flat_ids = tf.reshape(ids, [-1])
        if self._direct:
            self._descend(flat_ids, lines)
        else:
            self.row_sum.scatter_add(tf.IndexedSlices(lines, flat_ids))
        if config.rows == "adafest":
            self.row_count.assign_add(contributions(ids, counted, self._n_rows))
        over = tf.cast(norms > config.clip, tf.float32)
        self.clipped.assign_add(tf.reduce_sum(over * counted))
        self.learned.assign_add(tf.reduce_sum(counted))
        self.waiting.assign_add(tf.cast(tf.reduce_any(trace.batch.weights > 0.0), tf.int32))
        full = self.waiting >= self.batches
        tf.cond(full, lambda: self._step(trace.losses.shape[0]), lambda: None)

    def report(self) -> dict[str, object]:
        """Returns the guarantee in words and numbers, and diagnostics.

        All but the signal-to-noise ratio and the number of releases are computed from raw
        gradients and are not private themselves.
        """
        config, learned = self._config, float(self.learned.numpy())
        return {
            "guarantee": str(config.guarantee()),
            "epsilon": config.epsilon if config.noise else None,
            "delta": config.delta,
            "noise_multiplier": config.noise,
            "releases": int(self.release.numpy()),
            "batches_per_release": int(self.batches.numpy()),
            "signal_to_noise": float(self.snr.numpy()),
            "clipped_share": float(self.clipped.numpy()) / max(learned, 1.0),
            "examples_learned": learned,
            "examples_over_the_users_bound": float(self.dropped.numpy()),
        }

    def _admitted(self, trace: Trace) -> tf.Tensor:
        """Returns float32[B], 1 for examples that count: real ones within their user's bound."""
        config = self._config
        live = trace.batch.weights > 0.0
        if not config.user:
            return tf.cast(live, tf.float32)
        user = trace.features.ids[:, self._model.user_slot]
        size = user.shape[0]
        earlier = tf.linalg.band_part(tf.ones([size, size]), -1, 0) - tf.eye(size)
        repeated = tf.reduce_any((user[:, None] == user[None]) & (earlier > 0) & live[None], axis=1)
        release = self.release.read_value()
        rested = tf.gather(self.user_release, user) < release
        room = tf.gather(self.user_count, user) < config.per_user
        admitted = live & ~repeated & rested & room
        # Users whose ids collide share one bound, which is the safe side.
        self.user_count.scatter_add(tf.IndexedSlices(tf.cast(admitted, tf.int32), user))
        newest = tf.where(admitted, release, -1)
        self.user_release.scatter_max(tf.IndexedSlices(newest, user))
        self.dropped.assign_add(tf.reduce_sum(tf.cast(live & ~admitted, tf.float32)))
        return tf.cast(admitted, tf.float32)

    def _step(self, batch_size: int) -> None:
        config, release = self._config, self.release.read_value()
        noise = self.noise.draw(release)
        # The nominal number, never the realised one, which depends on who was there.
        nominal = tf.cast(self.batches * batch_size, tf.float32)
        dense = self.dense_sum + noise[: self._n_dense]
        moving = 1.0
        if config.mechanism == "sqrt_toeplitz":
            # Noise is sized for so many releases: later ones must not happen.
            moving = tf.cast(release < config.releases, tf.float32)
        at = 0
        for state, variables in zip(self.plain.states, self.plain.variables_moved, strict=True):
            gradients = []
            for variable in variables:
                size = variable.shape.num_elements()
                gradients.append(
                    tf.reshape(moving * dense[at : at + size] / nominal, variable.shape)
                )
                at += size
            state.apply(gradients)
        if not self._direct:
            self._move_rows(
                tf.reshape(noise[self._n_dense :], [-1, self._n_columns]), moving, release
            )
        if self._n_dense and config.noise:
            signal = tf.reduce_sum(dense * dense) / (self.noise.variance() * self._n_dense)
            snr = tf.sqrt(tf.maximum(signal - 1.0, 0.0))
            self.snr.assign_add(tf.where(release == 0, 1.0, _SNR_RATE) * (snr - self.snr))
            self._grow()
        for total in (self.dense_sum, self.row_sum, self.row_count):
            total.assign(tf.zeros_like(total))
        self.waiting.assign(0)
        self.release.assign_add(1)

    def _move_rows(self, noise: tf.Tensor, moving: float | tf.Tensor, release: tf.Tensor) -> None:
        config = self._config
        if config.rows == "dense":
            rows = tf.range(self._n_rows)
            gradients = moving * (self.row_sum + noise)
        else:
            # A generator of its own: the same numbers must not be used twice.
            key = tf.stack([tf.constant(self._model.seed + 7_919, tf.int64), release])
            counts = self.row_count + self._histogram_noise * normal(self._n_rows, key)
            counts, rows = tf.math.top_k(counts, self._moved)
            passed = tf.cast(counts >= config.threshold, tf.float32)[:, None]
            gradients = passed * (tf.gather(self.row_sum, rows) + noise)
        self._descend(rows, gradients)

    def _descend(self, rows: tf.Tensor, gradients: tf.Tensor) -> None:
        values = self._table.lookup(rows)
        parts = tf.split(gradients, self._widths, axis=1)
        for slot, value, part in zip(self._table.slots, values, parts, strict=True):
            slot.apply(rows, value, part)

    def _grow(self) -> None:
        config = self._config
        if config.grow_below:
            low = (self.snr < config.grow_below) & (self.batches * 2 <= config.most_batches)
            self.batches.assign(tf.where(low, self.batches * 2, self.batches))
