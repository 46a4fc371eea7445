"""Tiny streams and learners; compiled learners are shared, because compiling dominates."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ctr.schema import Feature, Label, Schema

TABLE_ROWS = 1009
BATCH = 32


@dataclass
class Stream:
    """Encoded examples.

    Attributes:
        ids: int32[n, S].
        numeric: float32[n, M].
        labels: float32[n, T].
        weights: float32[n].
    """

    ids: np.ndarray
    numeric: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def cut(self, start: int, stop: int) -> Stream:
        return Stream(*(part[start:stop] for part in vars(self).values()))


def learn(learner: Any, stream: Stream, padding: Stream | None = None) -> np.ndarray:
    """Learns a stream and returns float32[n, T]; what pads the last chunk has weight 0."""
    from ctr.data.examples import Chunk

    k, b = learner.chunk_shape
    n = len(stream.weights)
    n_chunks = -(-n // (k * b))
    missing = n_chunks * k * b - n
    probs = []
    columns = []
    for name, part in vars(stream).items():
        tail = np.zeros((missing, *part.shape[1:]), part.dtype)
        if padding is not None and name != "weights":
            tail[:] = np.resize(getattr(padding, name), tail.shape)
        columns.append(np.concatenate([part, tail]).reshape(n_chunks, k, b, *part.shape[1:]))
    for parts in zip(*columns, strict=True):
        probs.append(learner.learn(Chunk(*parts, {})).reshape(k * b, -1))
    return np.concatenate(probs)[:n]


def state(learner: Any) -> dict[str, bytes]:
    """Returns the bytes of all variables by place and own name (layers number themselves)."""
    names = [f"{i} {v.name.rpartition('/')[2]}" for i, v in enumerate(learner.variables)]
    return {n: v.numpy().tobytes() for n, v in zip(names, learner.variables, strict=True)}


def weights_and_slots(learner: Any) -> dict[str, bytes]:
    """Returns ``state`` without the step counters of optimizers, which padding advances."""
    return {name: value for name, value in state(learner).items() if "iteration" not in name}


@dataclass
class Learners:
    """Builds each learner once; later requests get it back in its first state."""

    built: dict[Hashable, tuple[Any, list[np.ndarray]]] = field(default_factory=dict)

    def __call__(self, recipe: Any, schema: Schema, seed: int = 0, labels: tuple = ()) -> Any:
        from ctr.learner import Learner

        key = (recipe, schema.fingerprint(), schema.slices, seed, labels)
        if key not in self.built:
            learner = Learner(recipe, schema, seed, labels)
            # Copies: what `numpy()` returns may share memory with the variable.
            self.built[key] = learner, [v.numpy().copy() for v in learner.variables]
        learner, start = self.built[key]
        for variable, value in zip(learner.variables, start, strict=True):
            variable.assign(value)
        return learner


@pytest.fixture(scope="session")
def learners() -> Learners:
    return Learners()


@pytest.fixture(scope="session")
def tiny_schema() -> Schema:
    """Two categories, a bag of up to three tokens, two numbers, two labels."""
    return Schema(
        "tiny",
        (
            Feature("a"),
            Feature("b"),
            Feature("words", kind="bag", max_length=3),
            Feature("x", kind="numeric"),
            Feature("z", kind="numeric", log=True),
        ),
        (Label("click"), Label("buy")),
        slices=("a",),
    )


@pytest.fixture(scope="session")
def planted() -> Callable[..., Stream]:
    """Returns a maker of streams for ``tiny_schema`` with a signal in every kind of feature."""

    def make(n: int, seed: int = 0, n_labels: int = 1) -> Stream:
        rng = np.random.default_rng(seed)
        effects = np.random.default_rng(99).normal(0.0, 1.2, (n_labels, 5, 10))
        codes = rng.integers(0, 10, (n, 5))
        ids = (1 + codes + 20 * np.array([0, 1, 2, 2, 2])).astype(np.int32)
        empty = np.arange(3) >= rng.integers(0, 4, n)[:, None]
        ids[:, 2:][empty] = 0
        numeric = rng.normal(0.0, 3.0, (n, 2)).astype(np.float32)
        logit = np.stack([e[np.arange(5)[:2], codes[:, :2]].sum(axis=1) for e in effects], axis=1)
        logit += 0.4 * numeric[:, :1] - 1.0
        labels = (rng.random((n, n_labels)) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
        numeric[rng.random((n, 2)) < 0.05] = np.nan
        return Stream(ids, numeric, labels, np.ones(n, np.float32))

    return make
