"""The checks of a research module, each of which says in one sentence what is wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from ctr.checkpoint import CheckpointStore, restore
from ctr.compilations import counted_compilations
from ctr.config import to_plain
from ctr.data.examples import Block, Chunk, Examples
from ctr.errors import ModuleError
from ctr.learner import Learner
from ctr.module import SLOTS, ResearchModule, compose
from ctr.recipe import Recipe, side_columns
from ctr.schema import Schema
from ctr.testing.stream import cut_chunks, encoded, padded_chunk, tiny_recipe, tiny_stream

STEPS = 50
_PER_LAUNCH = 5


@dataclass(frozen=True)
class Check:
    """One check; calling it raises ``ModuleError`` with one sentence if the module fails.

    Attributes:
        name: Short name, also the test's id.
        run: The check.
    """

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Runs the check."""
        self.run()

    def __str__(self) -> str:
        return self.name


def module_checks(
    module: ResearchModule, base: Recipe | None = None, labels: Sequence[str] = ()
) -> list[Check]:
    """Returns the checks of a module; nothing is run yet.

    Args:
        module: The module with its hyper-parameters.
        base: What it is applied to; a tiny default recipe if None.
        labels: Labels to learn, out of those of the simulator; the click if empty.
    """
    bench = Bench(module, base or tiny_recipe(), tuple(labels))
    return [Check(name, partial(run, bench)) for name, run in CHECKS.items()]


class Bench:
    """The work the checks of one module share, each piece done once and only when needed."""

    def __init__(self, module: ResearchModule, base: Recipe, labels: tuple[str, ...]) -> None:
        self._module, self._base, self._labels = module, base, labels

    def docstring(self) -> None:
        """The class's docstring names the paper, how the code departs from it, and a limit."""
        text = type(self._module).__doc__ or ""
        missing = [word for word in ("Paper:", "Deviations:", "Reduces to:") if word not in text]
        if missing:
            self._fail(f"its docstring lacks {', '.join(missing)}")

    def slots(self) -> None:
        """The recipe changes in the declared slots and nowhere else."""
        info = self._module.info
        changed = {s for s in SLOTS if getattr(self._recipe, s) is not getattr(self._base, s)}
        idle = sorted((info.replaces | info.extends) - changed)
        if idle:
            self._fail(f"it declares {', '.join(idle)} but leaves it as it was")

    def purity(self) -> None:
        """``apply`` gives equal recipes for equal ones and does not touch its argument."""
        before = to_plain(self._base)
        first, second = (self._module.apply(self._base) for _ in range(2))
        if to_plain(self._base) != before:
            self._fail("apply changed the recipe it was given instead of returning a new one")
        if to_plain(first) != to_plain(second):
            self._fail("apply returned different recipes for the same argument")

    def same_bits(self) -> None:
        """A second learner with the same seed has the same bits at first and after training."""
        for what, ours, again in (
            ("initial", self._first["start"], self._second["start"]),
            ("trained", self._first["middle"], self._second["middle"]),
        ):
            name = _different(ours, again)
            if name is not None:
                self._fail(f"two runs with one seed differ in the {what} value of {name}")

    def compiled_once(self) -> None:
        """The training step was traced and compiled once for all launches, however full."""
        n = self._first["traces"]
        if n != 1:
            self._fail(f"the training step was traced {n} times instead of once")
        learner: Learner = self._second["learner"]
        k, b = learner.chunk_shape
        chunk = self._chunks[self._half][1]
        with counted_compilations() as compiled:
            for n_rows in (1, b + 1, k * b):
                learner.learn(padded_chunk(chunk, n_rows))
        if compiled.count:
            self._fail(
                f"the training step was compiled {compiled.count} more times for launches that "
                "are less full: XLA must know a number that depends on the data, such as the "
                "bound of a tf.range or a shape"
            )

    def padding(self) -> None:
        """What stands in rows of weight 0 has no effect on any variable or prediction."""
        learner: Learner = self._second["learner"]
        k, b = learner.chunk_shape
        n_rows = k * b - b - b // 2
        chunk, other = self._chunks[self._half][1], self._chunks[0][1]
        states, probs = [], []
        for padding in (None, other):
            _assign(learner, self._second["middle"])
            out = learner.learn(padded_chunk(chunk, n_rows, padding))
            probs.append(out.reshape(k * b, -1)[:n_rows])
            states.append(_state(learner))
        name = _different(*states)
        if name is not None:
            self._fail(f"rows of weight 0 change {name}")
        if probs[0].tobytes() != probs[1].tobytes():
            self._fail("rows of weight 0 change the predictions of other rows")

    def checkpoint(self) -> None:
        """Stopping, saving and continuing in a new learner gives the bits of one long run."""
        name = _different(self._first["end"], self._second["resumed end"])
        if name is not None:
            self._fail(f"a run continued from a checkpoint differs in {name}: is it a variable?")

    def finite(self) -> None:
        """Predictions are probabilities and all variables are finite."""
        probs = self._first["probs"]
        if not (np.isfinite(probs).all() and (probs >= 0).all() and (probs <= 1).all()):
            self._fail(f"a prediction within {STEPS} steps is no probability")
        for variable in self._first["learner"].variables:
            value = variable.numpy()
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                self._fail(f"{variable.name} is not finite after {STEPS} steps")

    def export(self) -> None:
        """A saved and reloaded graph predicts what the learner predicts."""
        learner: Learner = self._first["learner"]
        face = tf.Module()
        face.learner = learner
        face.serve = tf.function(learner.logits, input_signature=learner.input_signature)
        block = self._block
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(face, folder)
            loaded = tf.saved_model.load(folder)
            logits = loaded.serve(tf.constant(block.ids), tf.constant(block.numeric))
        exported = tf.sigmoid(logits).numpy()
        error = float(np.max(np.abs(exported - learner.predict(block.ids, block.numeric))))
        if not error < 1e-6:
            self._fail(f"exported predictions differ from the learner's by up to {error:.2g}")

    def _fail(self, sentence: str) -> None:
        raise ModuleError(f"module {self._module.info.name!r}: {sentence}.")

    @cached_property
    def _recipe(self) -> Recipe:
        return compose(self._base, [self._module])

    @cached_property
    def _data(self) -> tuple[Schema, pa.RecordBatch]:
        columns = dict.fromkeys([*side_columns(self._recipe), *self._module.info.columns])
        return tiny_stream(STEPS * self._recipe.batch_size, tuple(columns))

    @cached_property
    def _block(self) -> Block:
        return encoded(self._first_learner, self._data[1])

    @cached_property
    def _chunks(self) -> list[tuple[Examples, Chunk]]:
        return cut_chunks(self._first_learner, self._block)

    @property
    def _half(self) -> int:
        return len(self._chunks) // 2

    def _learner(self) -> Learner:
        return Learner(self._recipe, self._data[0], 1, self._labels, n_batches=_PER_LAUNCH)

    @cached_property
    def _first_learner(self) -> Learner:
        return self._learner()

    @cached_property
    def _first(self) -> dict[str, Any]:
        """One run from start to end."""
        learner = self._first_learner
        start = _state(learner)
        probs = self._train(learner, 0, self._half)
        middle = _state(learner)
        probs += self._train(learner, self._half, len(self._chunks))
        return {
            "learner": learner,
            "start": start,
            "middle": middle,
            "end": _state(learner),
            "probs": np.concatenate(probs),
            "traces": learner.n_traces,
        }

    @cached_property
    def _second(self) -> dict[str, Any]:
        """A learner of its own that goes on where the first one was half-way, then begins anew."""
        learner = self._learner()
        start = _state(learner)
        self._restore_middle(learner)
        self._train(learner, self._half, len(self._chunks))
        end = _state(learner)
        _assign(learner, start)
        self._train(learner, 0, self._half)
        return {
            "learner": learner,
            "start": start,
            "resumed end": end,
            "middle": _state(learner),
        }

    def _restore_middle(self, learner: Learner) -> None:
        first: Learner = self._first["learner"]
        with tempfile.TemporaryDirectory() as folder:
            store = CheckpointStore(Path(folder))
            _assign(first, self._first["middle"])
            store.save(first, 1, {}, {})
            _assign(first, self._first["end"])
            saved = store.latest()
            assert saved is not None
            restore(learner, saved)

    def _train(self, learner: Learner, start: int, stop: int) -> list[NDArray[np.float32]]:
        return [examples.rows(learner.learn(c)) for examples, c in self._chunks[start:stop]]


#: Every check by its name, in the order in which they run.
CHECKS: dict[str, Callable[[Bench], None]] = {
    "docstring names its paper": Bench.docstring,
    "declared slots are those that change": Bench.slots,
    "apply is pure and repeatable": Bench.purity,
    "same seed, same bits": Bench.same_bits,
    "compiled once": Bench.compiled_once,
    "padding is inert": Bench.padding,
    "a checkpoint changes nothing": Bench.checkpoint,
    "finite after 50 steps": Bench.finite,
    "exported predictions are the learner's": Bench.export,
}


def _state(learner: Learner) -> list[tuple[str, NDArray[Any]]]:
    # Copies: compiled updates write into the memory that `numpy()` shows.
    return [(v.name, v.numpy().copy()) for v in learner.variables]


def _assign(learner: Learner, state: list[tuple[str, NDArray[Any]]]) -> None:
    for variable, (_, value) in zip(learner.variables, state, strict=True):
        variable.assign(value.copy())  # the variable may take the memory for its own


def _different(
    ours: list[tuple[str, NDArray[Any]]], others: list[tuple[str, NDArray[Any]]]
) -> str | None:
    """Returns the name of the first variable whose bits differ."""
    # Keras numbers its layers through, so that names differ between learners.
    if [value.shape for _, value in ours] != [value.shape for _, value in others]:
        return "the shapes of the variables"
    for (name, a), (_, b) in zip(ours, others, strict=True):
        if a.tobytes() != b.tobytes():
            return name
    return None
