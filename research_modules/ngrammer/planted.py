"""Pairs of hidden word classes: ``python -m research_modules.ngrammer.planted``.

Every word has one of 8 hidden classes; a click depends on the classes of neighbours by an
antisymmetric matrix, so that a bag of words says nothing of it and a pair of words is too rare to
be learned. Arms with "content" start from embeddings that show the class, as pretrained ones would;
"cold" ones have to find it from clicks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.bench.planted import filled_chunks
from ctr.calibration import NoCalibration
from ctr.data.examples import Chunk
from ctr.harness.stats import t_interval
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import KerasOptimizer, Optimizers
from ctr.optimizers.rows import AdaGrad
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from research_modules.ngrammer.module import NGrammer

LENGTH, WORDS, CLASSES, DIM = 6, 1000, 8, 16
_BATCH, _PER_LAUNCH, _ROWS = 256, 49, 16_384
_SCHEMA = Schema(
    "planted", (Feature("words", kind="bag", max_length=LENGTH),), (Label("click"),)
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A stream in memory.

    Attributes:
        ids: int32[n, 6], rows of the table, word w in row 1 + w.
        classes: int64[1000], hidden class of each word.
        labels: float32[n].
        truth: float64[n], the probabilities that the labels were drawn from.
    """

    ids: NDArray[np.int32]
    classes: NDArray[np.int64]
    labels: NDArray[np.float32]
    truth: NDArray[np.float64]

    def chunks(self) -> list[Chunk]:
        """Returns the stream as filled launches; the rest is left out."""
        return filled_chunks(self.ids, self.labels[:, None], (_PER_LAUNCH, _BATCH))


def simulate(n: int, seed: int) -> Text:
    """Draws texts of 6 words whose frequencies follow Zipf's law with exponent 0.8."""
    rng = np.random.default_rng(seed)
    frequency = np.arange(1, WORDS + 1) ** -0.8
    words = rng.choice(WORDS, size=(n, LENGTH), p=frequency / frequency.sum())
    classes = rng.integers(CLASSES, size=WORDS)
    alone = 0.3 * rng.normal(size=CLASSES)
    pairs = rng.normal(size=(CLASSES, CLASSES)) * 1.8
    pairs = (pairs - pairs.T) / 2**0.5
    found = classes[words]
    order = pairs[found[:, :-1], found[:, 1:]].sum(axis=1) / (LENGTH - 1) ** 0.5
    logits = -2.9 + alone[found].sum(axis=1) / LENGTH**0.5 + order
    truth = 1.0 / (1.0 + np.exp(-logits))
    labels = (rng.random(n) < truth).astype(np.float32)
    return Text((1 + words).astype(np.int32), classes, labels, truth)


def recipe(rate: float = 0.05, **settings: Any) -> Recipe:
    """Returns the base, or with settings the base with ngrammer."""
    optimizers = Optimizers(embedding=AdaGrad(rate), tower=KerasOptimizer(rate=0.05))
    base = Recipe(
        Mlp(dim=DIM, hidden=(32,)), calibrator=NoCalibration(), optimizer=optimizers,
        batch_size=_BATCH, table_rows=_ROWS,
    )  # fmt: skip
    return compose(base, [NGrammer("words", **settings)] if settings else [])


def bench(recipe: Recipe) -> Learner:
    """Returns a learner of the click."""
    return Learner(recipe, _SCHEMA, 0, (), _PER_LAUNCH)


def run(learner: Learner, text: Text, seed: int, content: bool, oracle: bool = False) -> float:
    """Starts the learner anew and returns its progressive log loss.

    Args:
        learner: The learner, compiled or not.
        text: The stream.
        seed: Decides initial values.
        content: True starts from embeddings that show each word's class through noise.
        oracle: True gives every word its class as the code of all heads.
    """
    start = Learner(learner.recipe, _SCHEMA, seed, (), _PER_LAUNCH)
    for variable, value in zip(learner.variables, start.variables, strict=True):
        variable.assign(value)
    if content:
        rng = np.random.default_rng(seed)
        centers = rng.normal(size=(CLASSES, DIM))
        table = learner.table.embedding.numpy().copy()
        table[1 : 1 + WORDS] = centers[text.classes] + 0.5 * rng.normal(size=(WORDS, DIM))
        learner.table.embedding.assign(table)
    if oracle:
        state: Any = learner.transforms[0]
        codes = np.full(state.codes.shape, -1, np.int32)
        codes[1 : 1 + WORDS] = text.classes[:, None]
        state.codes.assign(codes)
    chunks = text.chunks()
    prob = np.stack([learner.learn(chunk) for chunk in chunks]).ravel()
    return log_loss(prob, np.stack([chunk.labels for chunk in chunks]).ravel())


def log_loss(prob: NDArray[np.floating], labels: NDArray[np.float32]) -> float:
    """Returns the mean log loss in nats."""
    p = np.clip(np.asarray(prob, float), 1e-7, 1 - 1e-7)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


#: Name -> settings of the module, whether embeddings show the class, whether codes are the classes.
ARMS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "words alone": ({}, True, False),
    "pairs of words, 4k rows": ({"source": "raw", "rows": 4096, "heads": 1}, True, False),
    "pairs of words, 64k rows": ({"source": "raw", "rows": 65536, "heads": 1}, True, False),
    "random codes": ({"source": "placebo", "codes": 8, "rows": 4096}, True, False),
    "codes, K = 16": ({"codes": 16, "rows": 4096}, True, False),
    "codes, K = 16, no layer norm": ({"codes": 16, "rows": 4096, "norm": False}, True, False),
    "codes, K = 16, reference 'add'": ({"codes": 16, "rows": 4096, "mode": "add"}, True, False),
    "without pairs, reference layer": ({"mode": "stub"}, True, False),
    "classes as codes": ({"codes": 8, "rows": 4096, "start": 1 << 60}, True, True),
    "cold: words alone": ({}, False, False),
    "cold: codes, K = 16": ({"codes": 16, "rows": 4096}, False, False),
    "cold: from 100,000 on": ({"codes": 16, "rows": 4096, "start": 100_000}, False, False),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200_704)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default="", help="only arms that contain this text")
    given = parser.parse_args(arguments)
    texts = [simulate(given.examples, seed) for seed in range(given.seeds)]
    bayes = np.mean([log_loss(text.truth, text.labels) for text in texts])
    print(f"{'the true probabilities':<36}{bayes:8.4f}")
    base: dict[bool, list[float]] = {}
    for name, (settings, content, oracle) in ARMS.items():
        if given.arms not in name and settings:
            continue
        learner = bench(recipe(**settings))
        found = [run(learner, text, seed, content, oracle) for seed, text in enumerate(texts)]
        against = t_interval(np.subtract(found, base.setdefault(content, found)))
        low, high = (float("nan") if end is None else end for end in (against.low, against.high))
        spread = f"{against.value:+9.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"{name:<36}{np.mean(found):8.4f}{spread}", _facts(learner), flush=True)


def _facts(learner: Learner) -> str:
    if not learner.transforms or not isinstance(learner.transforms[0], tf.Module):
        return ""
    report = learner.transforms[0].report()
    if not report["codes_given"]:
        return ""
    perplexity = ", ".join(f"{p:.1f}" for p in report["code_perplexity"])
    return f"  code perplexity {perplexity}, churn {report['churn']:.2f}"


if __name__ == "__main__":
    main()
