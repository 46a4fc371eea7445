"""What an arm costs to learn and to predict with, against the base, in one process and in turns.

CPU times of two processes differ by what else the machine does, by more than most techniques cost.
Here both learners take turns, and each round gives one ratio.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Chunk
from ctr.errors import StreamError
from ctr.harness.stream import Stream
from ctr.learner import Learner

#: What is measured, by the names that a unit's result gives it.
KEYS = ("cpu_us_per_example", "inference_us_per_example")
#: Launches per turn: enough that work every some hundred steps falls into every turn.
LAUNCHES = 4
#: Predictions of 512 examples per turn.
PREDICTIONS = 20


@dataclass(frozen=True)
class Timed:
    """A learner with what it is timed on."""

    learner: Learner
    chunk: Chunk
    n_rows: int
    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]

    @classmethod
    def of(cls, learner: Learner, stream: Stream) -> Timed:
        """Takes the stream's first full launch, packed as the learner asks for it."""
        examples = next(iter(stream.chunks(learner)), None)
        if examples is None:
            raise StreamError(f"{stream.data_dir} holds no examples to time with.")
        block = examples.blocks[0]
        ids, numeric = (np.resize(x, (512, *x.shape[1:])) for x in (block.ids, block.numeric))
        return cls(learner, examples.chunk(learner.chunk_shape), examples.n_rows, ids, numeric)

    def turn(self) -> tuple[float, float]:
        """Returns CPU microseconds per example of learning and of predicting."""
        start = time.process_time()
        for _ in range(LAUNCHES):
            self.learner.learn(self.chunk)
        learned = _settled() - start
        start = time.process_time()
        for _ in range(PREDICTIONS):
            self.learner.predict(self.ids, self.numeric)
        predicted = time.process_time() - start
        return 1e6 * learned / (LAUNCHES * self.n_rows), 1e6 * predicted / (PREDICTIONS * 512)


def paired_ratios(base: Learner, arm: Learner, stream: Stream, rounds: int) -> dict[str, list]:
    """Returns the arm's cost over the base's by round, for each of :data:`KEYS`.

    Args:
        base: A learner of the base recipe.
        arm: A learner of the arm's; both are trained.
        stream: The examples.
        rounds: Turns of each, after one that compiles.
    """
    pair = [Timed.of(base, stream), Timed.of(arm, stream)]
    for timed in pair:
        timed.turn()
    ratios: dict[str, list[float]] = {key: [] for key in KEYS}
    for n in range(rounds):
        # Who begins changes, so that neither always follows the other.
        order = (0, 1) if n % 2 == 0 else (1, 0)
        spent = {place: pair[place].turn() for place in order}
        for key, above, below in zip(KEYS, spent[1], spent[0], strict=True):
            ratios[key].append(above / below)
    return ratios


def _settled() -> float:
    """Returns the process's CPU time once threads have done what the last launch left to them."""
    before = time.process_time()
    while True:
        time.sleep(0.005)
        now = time.process_time()
        if now - before < 0.001:
            return now
        before = now
