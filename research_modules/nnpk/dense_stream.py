"""A stream of numbers that interact: ``python -m research_modules.nnpk.dense_stream``.

The clicks depend on signs of products of pairs of features, which a linear model cannot see.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Chunk
from ctr.learner import Learner
from ctr.models import Linear, Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from research_modules.nnpk.kernels import alignment
from research_modules.nnpk.module import Nnpk

N_FEATURES, N_PAIRS = 16, 4
SCHEMA = Schema(
    "dense",
    tuple(Feature(f"x{i}", kind="numeric") for i in range(N_FEATURES)),
    (Label("click"),),
)


class Stream(NamedTuple):
    """A stream with its truth.

    Attributes:
        numeric: float32[n, 16].
        click: float32[n].
        entropy: Log loss of the true probabilities, nats.
    """

    numeric: NDArray[np.float32]
    click: NDArray[np.float32]
    entropy: float


def stream(n: int, seed: int) -> Stream:
    """Draws a stream: linear terms and four sign-type interactions, about a quarter clicks."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, N_FEATURES))
    weights = rng.normal(0, 0.3, N_FEATURES)
    logit = -1.5 + x @ weights
    for pair in range(N_PAIRS):
        logit += 0.6 * np.sign(x[:, 2 * pair] * x[:, 2 * pair + 1])
    prob = 1 / (1 + np.exp(-logit))
    click = rng.random(n) < prob
    entropy = -np.mean(np.where(click, np.log(prob), np.log(1 - prob)))
    return Stream(x.astype(np.float32), click.astype(np.float32), float(entropy))


def learn(recipe: Recipe, data: Stream, seed: int = 1) -> tuple[NDArray[np.float64], Learner]:
    """Learns a stream in one pass.

    Returns:
        The log loss of each progressive prediction, and the learner at the end.
    """
    learner = Learner(recipe, SCHEMA, seed)
    k, b = learner.chunk_shape
    losses = []
    for at in range(0, len(data.click) - k * b + 1, k * b):
        part = slice(at, at + k * b)
        click = data.click[part]
        chunk = Chunk(
            np.zeros((k, b, 0), np.int32), data.numeric[part].reshape(k, b, -1),
            click.reshape(k, b, 1), np.ones((k, b), np.float32), {},
        )  # fmt: skip
        prob = learner.learn(chunk).reshape(-1).astype(float).clip(1e-7, 1 - 1e-7)
        losses.append(-np.where(click > 0, np.log(prob), np.log(1 - prob)))
    return np.concatenate(losses), learner


def kernels_of(learner: Learner, data: Stream, rows: int = 1000) -> dict[str, float]:
    """Returns alignments of the prior kernel with labels and with the trained last layer."""
    features = learner.standardizer(data.numeric[-rows:])
    from ctr.inputs import features as assemble

    ids = np.zeros((rows, 0), np.int32)
    seen = learner.examples.read_value()
    inputs = assemble(learner.layout, ids, learner.table.lookup(ids), features, seen)
    aux = learner.model(inputs, training=False).aux
    prior = aux["prior"].numpy().astype(float)
    click = data.click[-rows:, None].astype(float)
    found = {"prior, labels": alignment(prior @ prior.T, click @ click.T)}
    if "hidden" in aux:
        hidden = aux["hidden"].numpy().astype(float)
        found["trained, labels"] = alignment(hidden @ hidden.T, click @ click.T)
        found["prior, trained"] = alignment(prior @ prior.T, hidden @ hidden.T)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--n", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gains", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--tuning-rows", type=int, default=40_000)
    args = parser.parse_args()
    base = Recipe(model=Linear(), batch_size=256, table_rows=2)
    tower = Recipe(model=Mlp(dim=1, hidden=(64, 32)), batch_size=256, table_rows=2)
    recipes = {"linear": base, "trained tower 64-32": tower}
    early = stream(args.tuning_rows, 100)
    for n in args.n:
        arms = {g: compose(base, [Nnpk(n=n, gain=g)]) for g in args.gains}
        gain = min(arms, key=lambda g: learn(arms[g], early)[0].mean())
        recipes[f"linear + {n} prior features (gain {gain:g})"] = arms[gain]
    recipes["linear + 128, norm prior (gain 1)"] = compose(base, [Nnpk(norm="prior")])
    recipes["tower + 128 as inputs"] = compose(tower, [Nnpk(into="inputs")])
    streams = [stream(args.rows, seed) for seed in range(args.seeds)]
    print(f"log loss of the truth {np.mean([s.entropy for s in streams]):.4f}")
    first: NDArray | None = None
    for name, recipe in recipes.items():
        runs = [learn(recipe, data) for data in streams]
        whole = np.array([losses.mean() for losses, _ in runs])
        late = np.mean([losses[-len(losses) // 5 :].mean() for losses, _ in runs])
        first = whole if first is None else first
        gain = 100 * (whole / first - 1)
        print(
            f"{name:<42} log loss {whole.mean():.4f} ({gain.mean():+.2f} % "
            f"[{gain.min():+.2f}, {gain.max():+.2f}]), last fifth {late:.4f}",
            flush=True,
        )
    print({k: round(v, 3) for k, v in kernels_of(runs[0][1], streams[0]).items()})


if __name__ == "__main__":
    main()
