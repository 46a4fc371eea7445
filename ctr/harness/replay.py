"""One arm with one seed over the stream, as it would have run live.

Without delay and with continuous publishing this is the trainer's own loop: a batch is predicted,
then learned. Otherwise predictions are those of the model version that would have been serving,
and a label is learned only after it has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.harness.arrivals import ArrivalQueue, Arrivals, Held, arrivals, next_rows
from ctr.harness.replicas import HandOver, reorder
from ctr.harness.scores import Observed, Observer
from ctr.harness.stream import Stream
from ctr.learner import Learner
from ctr.training.process import peak_memory_bytes

#: Told how many examples of the stream are done.
Progress = Callable[[int], None]


@dataclass
class Cost:
    """CPU time of learning, by launch; the first launch compiles and is kept apart.

    Attributes:
        compile_cpu_s: CPU seconds of the first launch.
        launches: (CPU seconds, examples) of each later launch.
        share: Examples learned per example of the stream: below 1 where a sampler drops some,
            above 1 where labels of one example arrive at several moments.
        effective: Effective share (sum w)^2 / (n sum w^2) of the n examples learned.
    """

    compile_cpu_s: float = 0.0
    launches: list[tuple[float, int]] = field(default_factory=list)
    share: float = 1.0
    effective: float = 1.0

    def add(self, cpu_s: float, examples: int) -> None:
        """Counts one launch."""
        if self.compile_cpu_s:
            self.launches.append((cpu_s, examples))
        else:
            self.compile_cpu_s = cpu_s

    @property
    def cpu_us_per_example(self) -> float | None:
        """CPU microseconds per example of the stream, by the median launch of learning.

        The median is not bent by what else the machine does.
        """
        full = max((n for _, n in self.launches), default=0)
        spent = [cpu_s / n for cpu_s, n in self.launches if 2 * n > full]
        return 1e6 * self.share * float(np.median(spent)) if spent else None


@dataclass(frozen=True)
class Replayed:
    """A finished replay.

    Attributes:
        prob: float32[n, T], progressive predictions after the burn-in.
        observed: The scored examples.
        learner: As it stood at the end.
        cost: What learning cost.
        sample: ids and numerics of the last examples, to time predictions with.
        peak_memory_bytes: Largest resident size up to the last prediction.
    """

    prob: NDArray[np.float32]
    observed: Observed
    learner: Learner
    cost: Cost
    sample: tuple[NDArray[np.int32], NDArray[np.float32]]
    peak_memory_bytes: int


@dataclass(frozen=True)
class Timing:
    """When labels arrive and models are published.

    Attributes:
        delay_us: Microseconds until a label arrives, by label.
        publish_us: Microseconds between two model versions; 0 publishes always.
        at_label_time: True lets a positive label arrive with its event.
    """

    delay_us: dict[str, int] = field(default_factory=dict)
    publish_us: int = 0
    at_label_time: bool = False

    @property
    def immediate(self) -> bool:
        """True if the plain predict-then-learn loop is meant."""
        return not (self.publish_us or any(self.delay_us.values()) or self.at_label_time)


def replay(
    learner: Learner,
    stream: Stream,
    burn_in: int = 0,
    timing: Timing | None = None,
    progress: Progress | None = None,
    order: int | None = None,
    hand_over: HandOver | None = None,
) -> Replayed:
    """Runs a learner over the stream.

    Args:
        learner: A new learner; it is trained in place.
        stream: The examples.
        burn_in: Examples whose predictions are not kept.
        timing: Delays and publishing; none by default.
        progress: Called now and then.
        order: Decides the order of batches within a launch; None keeps the stream's.
        hand_over: A common model that learns the first examples in the learner's place.

    Raises:
        CtrError: the data cannot be read, or the learner's numbers are not finite.
    """
    timing, told = timing or Timing(), progress or (lambda _: None)
    if timing.immediate and not learner.recipe.sampler.drops:
        return _immediate(learner, stream, burn_in, told, order, hand_over)
    return _held(learner, stream, burn_in, timing, told)


def _immediate(
    learner: Learner,
    stream: Stream,
    burn_in: int,
    told: Progress,
    order: int | None,
    hand_over: HandOver | None,
) -> Replayed:
    observer, cost, kept = Observer(stream.schema.slices, burn_in), Cost(), []
    rng = None if order is None else np.random.default_rng(order)
    done = 0
    for examples in stream.chunks(learner):
        chunk, back = examples.chunk(learner.chunk_shape), None
        if hand_over is not None and done >= hand_over.rows:
            hand_over.to(learner)
            hand_over = None
        if rng is not None and hand_over is None:
            chunk, back = reorder(chunk, rng)
        cpu = time.process_time()
        out = (learner if hand_over is None else hand_over.model).learn(chunk)
        if hand_over is None:
            cost.add(time.process_time() - cpu, examples.n_rows)
        out = out if back is None else out[back]
        prob = examples.rows(out)
        kept.append(prob[max(0, burn_in - done) :])
        for block in examples.blocks:
            observer.add(block)
        done += examples.n_rows
        told(done)
    last = examples.blocks[-1]
    sample = (last.ids[-512:], last.numeric[-512:])
    prob, memory = np.concatenate(kept), peak_memory_bytes()
    return Replayed(prob, observer.observed(), learner, cost, sample, memory)


def _held(
    learner: Learner, stream: Stream, burn_in: int, timing: Timing, told: Progress
) -> Replayed:
    """Predicts with published versions, and learns what was sampled once it has arrived.

    What a sampler drops is predicted like everything else, so that arms are scored on the same
    examples, but not learned. The encoded stream is held in memory, 4 bytes per example and slot.
    """
    observer = Observer(stream.schema.slices, burn_in)
    blocks: list[Block] = []
    for examples in stream.chunks(learner):
        blocks.extend(examples.blocks)
        for block in examples.blocks:
            observer.add(block)
    held = Held.of(blocks, learner.recipe.sampler)
    label_time = stream.label_times(learner.labels) if timing.at_label_time else {}
    order = arrivals(held, learner.labels, timing.delay_us, label_time)
    if timing.immediate:
        prob = predict_and_learn_sampled(learner, held, told)
    else:
        prob = predict_and_learn(learner, held, order, timing.publish_us, told)
    sample = (held.ids[-512:], held.numeric[-512:])
    memory, observed = peak_memory_bytes(), observer.observed()
    cost = _usual_cost(learner, held, order)
    return Replayed(prob[burn_in:], observed, learner, cost, sample, memory)


def predict_and_learn(
    learner: Learner, held: Held, order: Arrivals, publish_us: int, told: Progress
) -> NDArray[np.float32]:
    """Predicts every row with the version served at its time, learning in between.

    Args:
        learner: Trained in place.
        held: The stream.
        order: What arrives when.
        publish_us: Microseconds between two versions; 0 publishes before every batch.
        told: Told how many rows are predicted.

    Returns:
        float32[n, T].
    """
    queue = ArrivalQueue(learner, held, order)
    prob = np.zeros((held.n_rows, len(learner.labels)), np.float32)
    for start, stop, version_us in versions(held.time_us, publish_us, learner.recipe.batch_size):
        queue.learn_until(version_us)
        prob[start:stop] = learner.predict(held.ids[start:stop], held.numeric[start:stop])
        told(stop)
    return prob


def predict_and_learn_sampled(learner: Learner, held: Held, told: Progress) -> NDArray[np.float32]:
    """Learns each launch of kept rows after predicting it and the dropped rows beside it.

    This is the trainer's loop over the kept rows. Waiting for whatever arrived *strictly before*
    a batch, as with a delay, would leave each batch behind by one wherever rows share a time.

    Returns:
        float32[n, T].
    """
    shape, kept = learner.chunk_shape, np.flatnonzero(held.factors > 0)
    prob = np.zeros((held.n_rows, len(learner.labels)), np.float32)
    done = at = 0
    while at < len(kept):
        taken, places = next_rows(learner, held, kept[at:])
        rows = kept[at : at + taken]
        at += taken
        stop = int(kept[at]) if at < len(kept) else held.n_rows
        dropped = done + np.flatnonzero(held.factors[done:stop] == 0)
        if len(dropped):
            prob[dropped] = learner.predict(held.ids[dropped], held.numeric[dropped])
        examples = held.examples(rows, held.block.labels[rows], places)
        prob[rows] = examples.rows(learner.learn(examples.chunk(shape)))
        done = stop
        told(done)
    if done < held.n_rows:  # nothing was kept at all
        prob[done:] = learner.predict(held.ids[done:], held.numeric[done:])
    return prob


def _usual_cost(learner: Learner, held: Held, order: Arrivals) -> Cost:
    """Times learning in launches of the usual size, on a learner made for that.

    The small launches between two model versions would say more about calls than about learning.
    """
    weight = (held.block.weights * held.factors)[order.row].astype(np.float64)
    spread = len(weight) * float(np.sum(weight**2))
    effective = float(weight.sum()) ** 2 / spread if spread else 1.0
    cost = Cost(share=len(order.row) / held.n_rows, effective=effective)
    if not len(order.row):
        return cost
    usual = Learner(learner.recipe, learner.schema, learner.seed, learner.labels)
    k, b = usual.chunk_shape
    rows = np.resize(order.row, k * b)
    chunk = held.examples(rows, held.block.labels[rows]).chunk((k, b))
    for _ in range(7):
        cpu = time.process_time()
        usual.learn(chunk)
        cost.add(time.process_time() - cpu, len(rows))
    return cost


def versions(
    time_us: NDArray[np.int64], publish_us: int, batch_size: int
) -> list[tuple[int, int, int]]:
    """Returns (first row, row after the last, version time) of each served model version.

    Versions are published at multiples of the interval; without one, before every batch.
    """
    n = len(time_us)
    if publish_us:
        version = time_us // publish_us
        starts = np.append(0, np.flatnonzero(np.diff(version)) + 1)
        moments = version[starts] * publish_us
    else:
        starts = np.arange(0, n, batch_size)
        moments = time_us[starts]
    stops = np.append(starts[1:], n)
    return [(int(a), int(b), int(t)) for a, b, t in zip(starts, stops, moments, strict=True)]


def launch_batches(stream: Stream, timing: Timing, batch_size: int, drops: bool = False) -> int:
    """Returns the batches per launch that suit a timing; 0 leaves the learner's own choice.

    A launch costs the same however few of its batches are filled, so that it should not be much
    larger than what arrives between two model versions. Where a sampler drops examples, even
    continuous publishing predicts and learns in turns.
    """
    if timing.immediate and not drops:
        return 0
    span_us = stream.shards[-1].max_time_us - stream.shards[0].min_time_us
    n_rows = sum(shard.n_rows for shard in stream.shards)
    per_version = n_rows * timing.publish_us / max(span_us, 1)
    return int(np.clip(np.ceil(per_version / batch_size), 1, 32))


def inference_us(learner: Learner, sample: tuple[NDArray[np.int32], NDArray[np.float32]]) -> float:
    """Returns CPU microseconds per example of predictions in batches of 512, median of 20."""
    ids, numeric = (np.resize(part, (512, *part.shape[1:])) for part in sample)
    learner.predict(ids, numeric)
    spent = []
    for _ in range(20):
        cpu = time.process_time()
        learner.predict(ids, numeric)
        spent.append(time.process_time() - cpu)
    return 1e6 * float(np.median(spent)) / 512
