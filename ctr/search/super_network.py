"""One network that contains every candidate tower, as a part of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import tensorflow as tf
import tf_keras

from ctr.api import Features, Forward
from ctr.encoding import Layout
from ctr.errors import ConfigError
from ctr.models.activations import Activation, activation
from ctr.models.deep import Deep
from ctr.search.architectures import Architectures, candidates
from ctr.search.controller import Controller


@dataclass(frozen=True)
class SuperNetwork:
    """A deep model whose tower is chosen anew for every batch by a controller.

    A candidate uses the first units and the first ranks of shared matrices, by masks of 0 and 1
    after the activation and between the two halves of a bottleneck, so that shapes are static.
    When serving, it is the likeliest candidate that meets the target.

    Attributes:
        base: The deep model; its tower is the widest but for shares above 1.
        widths: Units of each layer that can be chosen, as shares of the base's.
        ranks: Ranks that can be chosen, likewise; 0 for a whole layer.
        target: Cost that is aimed at, as a share of the base's.
        gamma: Reward of missing the target by 100 %, below 0.
        samples: Candidates that are compared on each batch; the first one learns.
        warmup: Examples over which the controller waits while the weights begin to mean something.
            The widest candidate is put in the sampled one's place, at first always, then ever more
            seldom.
        rate: The controller's step size.
        overhead: Multiply-adds per example that everything outside the matrices is worth; part of
            every cost.
    """

    base: Deep
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25)
    ranks: tuple[float, ...] = (0.0, 0.125, 0.25)
    target: float = 0.9
    gamma: float = -0.02
    samples: int = 4
    warmup: int = 20_000
    rate: float = 0.02
    overhead: float = 0.0

    def __post_init__(self) -> None:
        for name, shares, least in (("widths", self.widths, 0.0), ("ranks", self.ranks, -1.0)):
            if not shares or min(shares) <= least or max(shares) > 4.0 or min(shares) < 0.0:
                raise ConfigError(
                    f"width_search: {name} must be shares of a layer's units up to 4"
                    f"{', or 0 for a whole layer' if least else ' and above 0'}; "
                    f"received {shares}."
                )
        if not (self.target > 0.0 and self.gamma < 0.0 and self.rate > 0.0):
            raise ConfigError(
                "width_search: target and rate must be above 0 and gamma below 0, received "
                f"{self.target}, {self.rate} and {self.gamma}."
            )
        if self.samples < 1 or self.warmup < 0 or self.overhead < 0.0:
            raise ConfigError(
                "width_search: samples must be at least 1, warmup and overhead at least 0, "
                f"received {self.samples}, {self.warmup} and {self.overhead}."
            )

    @property
    def dim(self) -> int:
        """Embedding columns."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> SuperNetworkModel:
        """Creates the variables; equal seeds give equal bits.

        Raises:
            ConfigError: no candidate, or too many of them.
        """
        return SuperNetworkModel(self, layout, n_tasks, seed)


class SuperNetworkModel(tf.Module):
    """The built form of :class:`SuperNetwork`.

    ``aux`` of a training step holds ``chosen`` int32[S, 2 L], the candidates compared, and
    ``samples`` float32[S, B, T], their logits; the first one's are also the model's.
    """

    def __init__(self, config: SuperNetwork, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="super_network")
        deep = config.base
        # The base's embeddings, crosses and head, with our tower between them.
        self.base = replace(deep, hidden=(), ranks=()).build(layout, n_tasks, seed)  # type: ignore[attr-defined]
        self.dim, self.wide = self.base.dim, self.base.wide
        self.architectures = candidates(
            self.base.n_tower_inputs, deep.hidden, deep.ranks, config.widths, config.ranks,
            n_tasks, self.base.macs_beside + config.overhead,
        )  # fmt: skip
        found = self.architectures
        self.tower = SharedTower(
            self.base.n_tower_inputs, found, activation(deep.activation, deep.beta), seed * 1000
        )
        self.controller = Controller([len(o) for o in found.options], config.rate)
        self._config, self._seed = config, seed
        sizes = [len(o) for o in found.options]
        strides = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)
        self._strides = tf.constant(strides, tf.int32)
        self._widest = tf.constant([int(np.argmax(o)) for o in _by_size(found)], tf.int32)
        self._far = tf.constant(np.where(found.near(config.target), 0.0, -1e9), tf.float32)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]: of a sampled candidate, or of the best when serving."""
        inputs, _ = self.base.tower_inputs(features)
        if not training:
            return self._outputs(features, inputs, self.best())
        chosen = self._sample(features.seen)
        numbers = tf.unstack(self.number(chosen))
        first = self._outputs(features, inputs, numbers[0])
        # The others are only judged: one tower learns from a batch, as it would stand-alone.
        logits = [first, *(self._outputs(features, inputs, number) for number in numbers[1:])]
        samples = tf.stop_gradient(tf.stack([forward.logits for forward in logits]))
        return first._replace(aux={**first.aux, "chosen": chosen, "samples": samples})

    def number(self, chosen: tf.Tensor) -> tf.Tensor:
        """Returns int32[S], the candidates' numbers, for options int32[S, 2 L]."""
        return tf.reduce_sum(chosen * self._strides, axis=1)

    def best(self) -> tf.Tensor:
        """Returns int32[], the likeliest candidate among those that meet the target."""
        log_probs = self.controller.log_probs()
        choices = self.architectures.choices
        total = tf.add_n([tf.gather(log_probs[d], choices[:, d]) for d in range(choices.shape[1])])
        return tf.argmax(total + self._far, output_type=tf.int32)

    def learn(
        self, chosen: tf.Tensor, accuracy: tf.Tensor, seen: tf.Tensor, counts: tf.Tensor
    ) -> None:
        """Rewards the controller.

        Args:
            chosen: int32[S, 2 L].
            accuracy: float32[S], the larger the better, in nats.
            seen: int64[], examples before this batch.
            counts: bool[], False for a batch without an example.
        """
        cost = tf.gather(tf.constant(self.architectures.cost), self.number(chosen))
        rewards = reward(accuracy, cost, self._config.target, self._config.gamma)
        self.controller.learn(chosen, rewards, counts, seen >= self._config.warmup)

    def report(self) -> dict[str, object]:
        """Returns what was chosen and how the controller got there, as plain data."""
        found, best = self.architectures, int(self.best().numpy())
        probs = self.controller.probabilities()
        likely = np.prod([p[found.choices[:, d]] for d, p in enumerate(probs)], axis=0)
        steps, entropies = self.controller.entropies()
        n = len(found.options) // 2
        names = [f"{what}_{i + 1}" for what in ("width", "rank") for i in range(n)]
        return {
            "settings": found.settings(best),
            "hidden": found.widths[best].tolist(),
            "ranks": found.ranks[best].tolist(),
            "cost": float(found.cost[best]),
            "target": self._config.target,
            "expected_cost": float(likely.astype(np.float64) @ found.cost),
            "probability": float(likely[best]),
            "candidates": len(found.cost),
            "distribution": {
                name: {str(option): float(p) for option, p in zip(options, prob, strict=True)}
                for name, options, prob in zip(names, found.options, probs, strict=True)
            },
            "entropy": {"batches": steps, "nats": [sum(line) for line in entropies]},
            "average_reward": float(self.controller.average_reward.numpy()),
        }

    def _outputs(self, features: Features, inputs: tf.Tensor, number: tf.Tensor) -> Forward:
        found = self.architectures
        widths = tf.gather(tf.constant(found.widths), number)
        ranks = tf.gather(tf.constant(found.ranks), number)
        return self.base.outputs(features, self.tower(inputs, widths, ranks))

    def _sample(self, seen: tf.Tensor) -> tf.Tensor:
        """Returns int32[S, 2 L], decided by the place in the stream, so a resumed run agrees."""
        config = self._config
        seed = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(seen, tf.int64)])
        chosen = self.controller.sample(config.samples, seed)
        if not config.warmup:
            return chosen
        forced = 1.0 - tf.cast(seen, tf.float32) / config.warmup
        draw = tf.random.stateless_uniform([], seed + 1)
        return tf.where(draw < forced, self._widest[None], chosen)


def reward(accuracy: tf.Tensor, cost: tf.Tensor, target: float, gamma: float) -> tf.Tensor:
    """Returns ``accuracy + gamma * |cost / target - 1|``, float32[S]; ``gamma`` is below 0.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.2; TuNAS (arXiv:2008.06120).
    """
    return accuracy + gamma * tf.abs(cost / target - 1.0)


def _by_size(found: Architectures) -> Sequence[Sequence[float]]:
    """Returns the options of each decision such that larger means more weights."""
    n = len(found.options) // 2
    whole = [[k or np.inf for k in options] for options in found.options[n:]]
    return [*found.options[:n], *whole]


class SharedTower(tf.Module):
    """Hidden layers of which a candidate uses the first units and ranks.

    With a single candidate these are, bit for bit, the layers of ``ctr.models.layers.tower``.

    Args:
        n_inputs: Numbers that the first layer reads.
        found: The candidates.
        act: The activation.
        seed: Decides the kernels.
    """

    def __init__(self, n_inputs: int, found: Architectures, act: Activation, seed: int) -> None:
        super().__init__(name="shared_tower")
        widths = [n_inputs, *found.widths.max(axis=0).tolist()]
        self.layers = [
            SharedLayer(m, n, found.ranks[:, i], act, seed + i)
            for i, (m, n) in enumerate(pairwise(widths))
        ]

    def __call__(self, x: tf.Tensor, widths: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
        """Returns float32[B, H]: the last layer for ``widths`` and ``ranks``, int32[L] each."""
        for i, layer in enumerate(self.layers):
            x = layer(x, widths[i], ranks[i])
        return x


class SharedLayer(tf.Module):
    """One layer of a :class:`SharedTower`: a whole matrix, a bottleneck, or either by choice."""

    def __init__(self, m: int, n: int, ranks: np.ndarray, act: Activation, seed: int) -> None:
        super().__init__(name="shared_layer")
        self._act, most = act, int(ranks.max())
        he = tf_keras.initializers.HeNormal
        thin = tf_keras.initializers.LecunNormal(seed + 250)
        self.kernel = tf.Variable(he(seed)([m, n]), name="kernel") if not ranks.all() else None
        self.down = tf.Variable(thin([m, most]), name="down") if most else None
        self.up = tf.Variable(he(seed)([most, n]), name="up") if most else None
        self.bias = tf.Variable(tf.zeros([n]), name="bias")

    def __call__(self, x: tf.Tensor, width: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        """Returns float32[B, n], of which only the first ``width`` units are not 0."""
        z = self._act(tf.nn.bias_add(self._product(x, rank), self.bias))
        # After the activation: a smooth one is not 0 at 0.
        return z * _first(width, z.shape[1])

    def _product(self, x: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        if self.down is None:
            return tf.matmul(x, self.kernel)
        inner = tf.matmul(x, self.down)
        low = tf.matmul(inner * _first(rank, inner.shape[1]), self.up)
        return low if self.kernel is None else tf.where(rank > 0, low, tf.matmul(x, self.kernel))


def _first(count: tf.Tensor, size: int) -> tf.Tensor:
    return tf.cast(tf.range(size) < count, tf.float32)
