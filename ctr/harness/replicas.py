"""What tells the replicas of an arm apart: initial values, the order of batches, or threads.

The seeds of an experiment number its replicas. By default a seed decides every initial value;
an arm may ask what another source of chance does to its predictions instead, or how much less
replicas differ that go on from one common model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.data.examples import Chunk
from ctr.errors import ConfigError
from ctr.harness.experiment import Arm, Experiment, WarmStart
from ctr.learner import Learner


@dataclass(frozen=True)
class Replica:
    """One training of an arm.

    Attributes:
        seed: Decides the initial values.
        order: Decides the order of the batches within each launch; None keeps the stream's.
        threads: Threads inside one operation.
        common_seed: Seed of the model that all replicas begin with, or None.
        warm_start: What they take over from it.
    """

    seed: int
    order: int | None = None
    threads: int = 1
    common_seed: int | None = None
    warm_start: WarmStart | None = None


def replica(experiment: Experiment, arm: Arm, seed: int) -> Replica:
    """Returns what is special about the replica of this number."""
    first = experiment.seeds[0]
    warm = arm.warm_start
    common = None if warm is None else first
    vary = arm.vary or experiment.vary
    order = seed if vary == "order" else None
    threads = 1 + experiment.seeds.index(seed) if vary == "threads" else 1
    return Replica(seed if vary == "seed" else first, order, threads, common, warm)


@dataclass
class HandOver:
    """A common model that learns the first examples and then gives way.

    Attributes:
        model: The common model.
        rows: Examples it learns, in whole launches.
        parts: ``table`` or ``all``, what the replica takes over.
    """

    model: Learner
    rows: int
    parts: str

    def to(self, learner: Learner) -> None:
        """Copies the parts into a learner of the same recipe.

        ``table`` is the embeddings and wide weights with their optimizer slots, the statistics of
        numeric inputs and who is admitted: what belongs to ids. ``all`` is every variable.
        """
        for own, others in zip(self._of(learner), self._of(self.model), strict=True):
            for variable, value in zip(own.variables, others.variables, strict=True):
                variable.assign(value)

    def _of(self, learner: Learner) -> list[tf.Module]:
        if self.parts == "all":
            return [learner]
        found = [learner.table, learner.standardizer]
        return found if learner.admission is None else [*found, learner.admission]


def reorder(chunk: Chunk, rng: np.random.Generator) -> tuple[Chunk, NDArray[np.int64]]:
    """Returns the chunk with its batches in random order, and the places that undo that.

    Batches stay whole, so that pages do; empty ones stay at the end.
    """
    place = np.arange(len(chunk.weights))
    filled = np.flatnonzero((chunk.weights > 0).any(axis=1))
    place[filled] = rng.permutation(filled)
    side = {name: values[place] for name, values in chunk.side.items()}
    moved = Chunk(
        chunk.ids[place], chunk.numeric[place], chunk.labels[place], chunk.weights[place], side
    )
    return moved, np.argsort(place)


def check_replicas(experiment: Experiment, arm: Arm, immediate: bool) -> None:
    """Refuses what cannot be replicated in another order or from a common model.

    Args:
        experiment: The experiment.
        arm: One of its arms.
        immediate: True if the arm predicts and learns in one pass.

    Raises:
        ConfigError: the arm learns from what arrives later, or scores the common model.
    """
    special = (arm.vary or experiment.vary) == "order" or arm.warm_start is not None
    if special and not immediate:
        raise ConfigError(
            f"arm {arm.name!r}: vary = 'order' and warm_start need the plain loop, which predicts "
            "and learns a batch in one pass. Leave out delays, publish intervals and samplers "
            "that drop rows."
        )
    if arm.warm_start is not None and not 0 < arm.warm_start.rows <= experiment.burn_in:
        raise ConfigError(
            f"arm {arm.name!r}: warm_start.rows must be above 0 and not exceed the burn-in of "
            f"{experiment.burn_in:,}, since only predictions of the replicas may be scored; "
            f"received {arm.warm_start.rows:,}."
        )
