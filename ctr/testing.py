"""Public checks that every research module must pass, ours or a third party's.

In a test suite::

    @pytest.mark.parametrize("check", module_checks(MyModule()), ids=str)
    def test_my_module(check):
        check()

``octr check package.module:Class`` runs the same checks. Those that train share three small
learners on a tiny simulated stream, so all of them together take well under a minute.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from ctr.checkpoint import CheckpointStore, restore
from ctr.config import to_plain
from ctr.data.examples import Block, Chunk, Examples
from ctr.data.packing import whole_query_places
from ctr.data.side import BUILT_IN, side_values
from ctr.errors import ModuleError
from ctr.hashing import fingerprint64
from ctr.learner import Learner
from ctr.models import WideDcn
from ctr.module import SLOTS, ResearchModule, compose
from ctr.recipe import Recipe, side_columns
from ctr.schema import Schema
from ctr.simulator import WorldConfig, simulate_examples

STEPS = 50
_BATCH, _PER_LAUNCH = 32, 5
_WORLD = WorldConfig(
    days=1.0, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4
)


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
    return [
        Check("docstring names its paper", bench.docstring),
        Check("declared slots are those that change", bench.slots),
        Check("apply is pure and repeatable", bench.purity),
        Check("same seed, same bits", bench.same_bits),
        Check("compiled once", bench.no_retrace),
        Check("padding is inert", bench.padding),
        Check("a checkpoint changes nothing", bench.checkpoint),
        Check("finite after 50 steps", bench.finite),
        Check("exported predictions are the learner's", bench.export),
    ]


def tiny_recipe() -> Recipe:
    """Returns the default recipe in a size that compiles and trains in seconds."""
    model = WideDcn(dim=4, cross_layers=1, cross_rank=4, hidden=(16, 8))
    return Recipe(model=model, batch_size=_BATCH, table_rows=2048)


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

    def no_retrace(self) -> None:
        """The training step was traced once for all launches."""
        n = self._first["traces"]
        if n != 1:
            self._fail(f"the training step was traced {n} times instead of once")

    def padding(self) -> None:
        """What stands in rows of weight 0 has no effect on any variable or prediction."""
        learner: Learner = self._second["learner"]
        states, probs = [], []
        for filled in (False, True):
            _assign(learner, self._second["middle"])
            chunk, padded = self._padded(filled)
            out = learner.learn(chunk)
            probs.append(out.reshape(len(padded), -1)[~padded])
            states.append(_state(learner))
        _assign(learner, self._second["middle"])
        name = _different(*states)
        if name is not None:
            self._fail(f"rows of weight 0 change {name}")
        if probs[0].tobytes() != probs[1].tobytes():
            self._fail("rows of weight 0 change the predictions of other rows")

    def checkpoint(self) -> None:
        """Stopping, saving and continuing in a new learner gives the bits of one long run."""
        with tempfile.TemporaryDirectory() as folder:
            store = CheckpointStore(Path(folder))
            _assign(self._second["learner"], self._second["middle"])
            store.save(self._second["learner"], 1, {}, {})
            learner = self._learner()
            saved = store.latest()
            assert saved is not None
            restore(learner, saved)
        self._train(learner, self._half, len(self._chunks))
        name = _different(self._first["end"], _state(learner))
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
    def _side(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*side_columns(self._recipe), *self._module.info.columns]))

    @cached_property
    def _data(self) -> tuple[Schema, pa.RecordBatch]:
        """The tiny stream; side columns the simulator does not have are random in (0, 1)."""
        n = STEPS * self._recipe.batch_size
        simulated = simulate_examples(n, 1, _WORLD)
        schema, table = simulated.schema, simulated.examples
        own = [c for c in self._side if c not in BUILT_IN or not schema.has(BUILT_IN[c][0])]
        rng = np.random.default_rng(1)
        for name in own:
            values = rng.uniform(0.05, 0.95, table.num_rows).astype(np.float32)
            table = table.append_column(name, pa.array(values))
        canonical = {c: (c,) for c in own if c in BUILT_IN}
        side = tuple(c for c in own if c not in BUILT_IN)
        schema = replace(schema, side=side, columns={**schema.columns, **canonical})
        return schema, table.combine_chunks().to_batches()[0]

    @cached_property
    def _block(self) -> Block:
        schema, batch = self._data
        learner: Learner = self._first_learner
        encoded = learner.encoder.encode(batch)
        labels = [np.asarray(batch.column(x).fill_null(-1), np.float32) for x in learner.labels]
        return Block(
            encoded.ids,
            encoded.numeric,
            np.column_stack(labels),
            np.ones(batch.num_rows, np.float32),
            batch.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False),
            fingerprint64(batch.column("query_id")),
            {name: side_values(batch, name) for name in learner.side},
            batch.select(["example_id", *schema.slices]),
        )

    @cached_property
    def _chunks(self) -> list[tuple[Examples, Chunk]]:
        learner: Learner = self._first_learner
        block, shape, found, at = self._block, learner.chunk_shape, [], 0
        n = len(block.time_us)
        while at < n:
            places = None
            stop = min(n, at + shape[0] * shape[1])
            if learner.whole_queries:
                assert block.query is not None
                taken, places = whole_query_places(block.query[at : stop + 1], shape, Counter())
                stop = at + taken
            examples = Examples((block.cut(at, stop),), at, stop - at, {}, places)
            found.append((examples, examples.chunk(shape)))
            at = stop
        return found

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
        """A run of a learner of its own, up to the middle."""
        learner = self._learner()
        start = _state(learner)
        self._train(learner, 0, self._half)
        return {"learner": learner, "start": start, "middle": _state(learner)}

    def _train(self, learner: Learner, start: int, stop: int) -> list[NDArray[np.float32]]:
        return [examples.rows(learner.learn(c)) for examples, c in self._chunks[start:stop]]

    def _padded(self, filled: bool) -> tuple[Chunk, NDArray[np.bool_]]:
        """Returns a chunk whose later rows have weight 0 and hold nothing, or other examples."""
        shape = self._first_learner.chunk_shape
        size = shape[0] * shape[1]
        n = size - shape[1] - shape[1] // 2
        first, other = self._chunks[self._half][1], self._chunks[0][1]
        padded = np.arange(size) >= n

        def part(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
            flat = ours.reshape((size, *ours.shape[2:])).copy()
            rest = theirs.reshape(flat.shape) if filled else np.zeros_like(flat)
            flat[padded] = rest[padded]
            return flat.reshape(ours.shape)

        weights = np.where(padded.reshape(shape), np.float32(0), first.weights)
        side = {name: part(first.side[name], other.side[name]) for name in first.side}
        chunk = Chunk(
            part(first.ids, other.ids), part(first.numeric, other.numeric),
            part(first.labels, other.labels), weights, side,
        )  # fmt: skip
        return chunk, padded


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
