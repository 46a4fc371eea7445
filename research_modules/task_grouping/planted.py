"""Two planted groups of labels: ``python -m research_modules.task_grouping.planted``.

Labels 0, 2, 4 follow one hidden score of each id, labels 1, 3, 5 another one. The shared model is
so narrow that it has room for one of them, which is what grouping is about; the last lines of the
table say how much of the gain is nothing but room.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import Features, Forward
from ctr.bench.planted import filled_chunks
from ctr.calibration import NoCalibration
from ctr.data.examples import Chunk
from ctr.encoding import Layout
from ctr.harness.stats import t_interval
from ctr.learner import Learner
from ctr.module import ResearchModule, compose
from ctr.optimizers import KerasOptimizer, Optimizers
from ctr.optimizers.rows import AdaGrad
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from research_modules.task_grouping.affinity import TaskAffinity, mean_affinity
from research_modules.task_grouping.groups import TaskGrouping
from research_modules.task_grouping.selection import best_cover, group_scores

FIELDS, IDS, TASKS = 6, 100, 6
PLANTED = ((0, 2, 4), (1, 3, 5))
#: Splits of the labels that mix both planted groups.
CROSSED = (((0, 1, 2), (3, 4, 5)), ((0, 1, 5), (2, 3, 4)), ((0, 3, 4), (1, 2, 5)))
_OFFSETS = np.repeat([-1.5, -3.0, -4.0], 2)
_BATCH, _PER_LAUNCH = 256, 49
_SCHEMA = Schema(
    "planted",
    tuple(Feature(f"field{i}") for i in range(FIELDS)),
    tuple(Label(f"task{i}") for i in range(TASKS)),
)


@dataclass(frozen=True)
class SumPooled:
    """Linear heads on the sum of an example's embeddings, nothing else.

    Attributes:
        dim: Width of the embeddings, all that the tasks share.
    """

    dim: int

    def build(self, layout: Layout, n_tasks: int, seed: int) -> SumPooledModel:
        """Creates the heads."""
        return SumPooledModel(self.dim, n_tasks, seed)


class SumPooledModel(tf.Module):
    """The built form of :class:`SumPooled`."""

    def __init__(self, dim: int, n_tasks: int, seed: int) -> None:
        super().__init__(name="sum_pooled")
        self.dim, self.n_wide, self.head = dim, 0, tf.Module()
        start = tf.random.stateless_normal([dim, n_tasks], [seed, 0x7A])
        self.head.kernel = tf.Variable(start * dim**-0.5, name="kernel")
        self.head.bias = tf.Variable(tf.zeros([n_tasks]), name="bias")

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]."""
        del training
        pooled = tf.reduce_sum(features.vectors, axis=1)
        return Forward(tf.matmul(pooled, self.head.kernel) + self.head.bias, {})


@dataclass(frozen=True)
class Planted:
    """A stream in memory.

    Attributes:
        ids: int32[n, 6], rows of the table.
        labels: float32[n, 6].
        truth: float64[n, 6], the probabilities that the labels were drawn from.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.float32]
    truth: NDArray[np.float64]

    def chunks(self) -> list[Chunk]:
        """Returns the stream as filled launches; the rest is left out."""
        return filled_chunks(self.ids, self.labels, (_PER_LAUNCH, _BATCH))


def simulate(n: int, seed: int) -> Planted:
    """Draws a stream: two hidden directions per id, tasks of a group a little apart in angle."""
    rng = np.random.default_rng(seed)
    values = rng.integers(IDS, size=(n, FIELDS))
    score = rng.normal(size=(FIELDS, IDS, 2, 2))
    logits = np.empty((n, TASKS))
    for task in range(TASKS):
        angle = 0.25 * (task // 2 - 1)
        direction = np.array([np.cos(angle), np.sin(angle)])
        per_id = score[:, :, task % 2] @ direction
        logits[:, task] = _OFFSETS[task] + per_id[np.arange(FIELDS), values].sum(axis=1)
    truth = 1.0 / (1.0 + np.exp(-logits))
    labels = (rng.random(truth.shape) < truth).astype(np.float32)
    ids = (1 + np.arange(FIELDS) * IDS + values).astype(np.int32)
    return Planted(ids, labels, truth)


def recipe(width: int, *modules: ResearchModule) -> Recipe:
    """Returns the shared model of the given width, changed by modules."""
    optimizers = Optimizers(AdaGrad(0.1), AdaGrad(0.1), KerasOptimizer(), KerasOptimizer(rate=0.1))
    base = Recipe(
        SumPooled(width), calibrator=NoCalibration(), optimizer=optimizers,
        batch_size=_BATCH, table_rows=1 + FIELDS * IDS, init_scale=0.05,
    )  # fmt: skip
    return compose(base, modules)


def bench(recipe: Recipe) -> Learner:
    """Returns a learner of all six labels."""
    names = [label.name for label in _SCHEMA.labels]
    return Learner(recipe, _SCHEMA, 0, names, _PER_LAUNCH)


def progressive(learner: Learner, stream: Planted, seed: int) -> float:
    """Starts the learner anew and returns its progressive log loss, mean over labels."""
    start = Learner(learner.recipe, _SCHEMA, seed, learner.labels, _PER_LAUNCH)
    for variable, value in zip(learner.variables, start.variables, strict=True):
        variable.assign(value)
    chunks = stream.chunks()
    probs = [learner.learn(chunk) for chunk in chunks]
    return log_loss(np.stack(probs), np.stack([chunk.labels for chunk in chunks]))


def log_loss(prob: NDArray[np.floating], labels: NDArray[np.float32]) -> float:
    """Returns the mean log loss in nats."""
    p = np.clip(np.asarray(prob, float), 1e-7, 1 - 1e-7)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def measured(learner: Learner) -> NDArray[np.float64]:
    """Returns the affinities that a learner with ``task_affinity`` has measured."""
    state: Any = learner.update
    return mean_affinity(state.ratio.numpy().astype(float), state.count.numpy().astype(float))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_352)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.3, help="step of the lookahead")
    given = parser.parse_args(arguments)
    watch = TaskAffinity(TASKS, every=10, rate=given.rate, first=0, examples=given.examples)
    streams = [simulate(given.examples, seed) for seed in range(given.seeds)]
    for width in (2, 4):
        joint = bench(recipe(width, watch))
        print(f"affinities in the joint model of width {width}:")
        for seed, stream in enumerate(streams):
            progressive(joint, stream, seed)
            _say(seed, measured(joint))
    single = tuple((task,) for task in range(TASKS))
    systems = {
        "together, 1 x 1": [recipe(1)],
        "crossed groups, 2 x 1": [recipe(1, TaskGrouping(groups)) for groups in CROSSED],
        "planted groups, 2 x 1": [recipe(1, TaskGrouping(PLANTED))],
        "together, 1 x 2 (as many parameters)": [recipe(2)],
        "single labels, 6 x 1 (3 times as many)": [recipe(1, TaskGrouping(single))],
    }
    found: dict[str, list[float]] = {}
    for name, recipes in systems.items():
        learners = [bench(r) for r in recipes]
        found[name] = [
            float(np.mean([progressive(learner, stream, seed) for learner in learners]))
            for seed, stream in enumerate(streams)
        ]
        against = t_interval(np.subtract(found[name], found["together, 1 x 1"]))
        low, high = (float("nan") if end is None else end for end in (against.low, against.high))
        print(
            f"{name:<40}{np.mean(found[name]):8.4f}{against.value:+9.4f} [{low:+.4f}, {high:+.4f}]"
        )
    bayes = np.mean([log_loss(stream.truth, stream.labels) for stream in streams])
    print(f"{'the true probabilities':<40}{bayes:8.4f}")


def _say(seed: int, matrix: NDArray[np.float64]) -> None:
    same = np.arange(TASKS)[:, None] % 2 == np.arange(TASKS) % 2
    inside = matrix[same & ~np.eye(TASKS, dtype=bool)].mean()
    cover = best_cover(matrix, 2)
    planted = sum(float(group_scores(matrix, g, 0.0)[list(g)].sum()) for g in PLANTED)
    print(
        f"  seed {seed}: within groups {inside:+.2e}, between {matrix[~same].mean():+.2e}; best "
        f"cover {cover.groups}, its score {cover.score:+.2e}, that of the planted {planted:+.2e}"
    )


if __name__ == "__main__":
    main()
