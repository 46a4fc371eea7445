"""Random-network features beside a model of the stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Features, Forward, ModelConfig
from ctr.encoding import Layout
from ctr.errors import ConfigError, nearest
from ctr.inputs import pool
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.schema import Feature
from research_modules.nnpk.prior import Prior, PriorFeatures

#: Where the features go.
PLACES = ("head", "inputs")


@dataclass(frozen=True)
class WithPriorFeatures:
    """A model with features of random networks beside it.

    Attributes:
        base: The model.
        prior: The networks.
        into: ``head`` adds a linear function of the features to the logits; ``inputs`` gives them
            to the model as further numbers.
        code_bits: Numbers that stand for one hashed feature, 1 to 32.
        gain: Factor of the features. AdaGrad's steps do not see the scale of a gradient, so in
            the head this is a factor of its rate.
    """

    base: ModelConfig
    prior: Prior
    into: str
    code_bits: int
    gain: float

    @property
    def dim(self) -> int:
        """Embedding columns of the model; the random networks need none."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> PriorModel:
        """Creates the variables; the run's seed draws other networks as well."""
        return PriorModel(self, layout, n_tasks, seed)


class PriorModel(tf.Module):
    """The built form of :class:`WithPriorFeatures`."""

    def __init__(self, config: WithPriorFeatures, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="with_prior_features")
        self._config, self._layout = config, layout
        prior = replace(config.prior, seed=config.prior.seed + seed)
        bits = config.code_bits
        self.features = PriorFeatures(prior, layout.n_features * bits + len(layout.numeric))
        if config.into == "inputs":
            names = tuple(Feature(f"prior_{j}", kind="numeric") for j in range(prior.n))
            layout = replace(layout, numeric=(*layout.numeric, *names))
        self.base = config.base.build(layout, n_tasks, seed)
        self.dim = config.dim
        self.n_wide = getattr(self.base, "n_wide", n_tasks)
        self.wide = tf.Module(name="wide")
        self.wide.base = getattr(self.base, "wide", None)
        if config.into == "head":
            self.wide.prior = tf.Variable(tf.zeros([prior.n, n_tasks]), name="prior_head")

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds the features as ``prior``, float32[B, n]."""
        phi = self._config.gain * self.features(self.inputs(features))
        if self._config.into == "inputs":
            numeric = tf.concat([features.numeric, phi], axis=1)
            forward = self.base(features._replace(numeric=numeric), training)
        else:
            forward = self.base(features, training)
            forward = forward._replace(logits=forward.logits + tf.matmul(phi, self.wide.prior))
        return forward._replace(aux={**forward.aux, "prior": phi})

    def inputs(self, features: Features) -> tf.Tensor:
        """Returns what the random networks see, float32[B, F * bits + M].

        Every feature has equal say: a hashed one is a code of +-1, a number is scaled likewise.
        Two examples that agree in m of F hashed features are then m / F alike.
        """
        bits = self._config.code_bits
        codes = pool(self._layout, features.ids, id_codes(features.ids, bits))
        n, n_numbers = tf.shape(features.numeric)[0], features.numeric.shape[1]
        flat = tf.reshape(codes, [n, codes.shape[1] * bits])
        # As long as a code; then to a mean square of 1 over all coordinates.
        x = tf.concat([flat, features.numeric * bits**0.5], axis=1)
        return x * (x.shape[1] / (bits * (codes.shape[1] + n_numbers))) ** 0.5


def id_codes(ids: tf.Tensor, bits: int) -> tf.Tensor:
    """Returns a fixed random code of +-1 for every id, float32[..., bits]; no table is needed.

    Args:
        ids: int32[...].
        bits: 1 to 32.
    """
    x = tf.bitcast(ids, tf.uint32)
    # The finaliser of MurmurHash3: every bit of the id moves every bit of the code.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
    places = tf.constant(list(range(bits)), tf.uint32)
    bit = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(x[..., None], places), tf.constant(1, tf.uint32)
    )
    return 2.0 * tf.cast(tf.bitcast(bit, tf.int32), tf.float32) - 1.0


@dataclass(frozen=True)
class Nnpk:
    """Features of randomly initialised networks: a floor for what training has to add.

    Each of ``n`` networks is drawn from its initialiser, stays as it is and gives one number;
    inner products of these numbers estimate the neural network prior kernel. Hashed features
    enter as codes of +-1 that follow from the id, so nothing has to be learned or stored.

    Paper: Amid, Anil, Kotlowski, Warmuth 2022, "Learning from randomly initialized neural network
    features" (arXiv:2202.06438), section 2, K(x, x') = E[f(x; theta) f(x'; theta)] and its finite
    sample.
    Deviations: the paper knows no hashed features; erf stands in for tanh, because its kernel has
    a closed form; features are whitened against synthetic inputs unless ``norm`` says otherwise.
    Reduces to: the base where the weights of the features are 0, as they are at first with
    ``into = "head"``; at ``activation = "linear"``, to a projection of the inputs.

    Attributes:
        n: Features.
        depth: Hidden layers of a network.
        width: Units of each.
        activation: ``relu``, ``erf`` or ``linear``.
        bias_std: Standard deviation of hidden biases.
        norm: ``none``, ``prior``, ``cosine`` or ``white``, see :class:`Prior`.
        into: ``head`` (added to the logits) or ``inputs`` (of the model).
        code_bits: Numbers that stand for one hashed feature.
        gain: Factor of the features, in the head a factor of the rate.
        seed: Added to the seed of the run, which decides the networks.
    """

    n: int = 128
    depth: int = 1
    width: int = 16
    activation: str = "relu"
    bias_std: float = 0.5
    norm: str = "white"
    into: str = "head"
    code_bits: int = 8
    gain: float = 1.0
    seed: int = 0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="nnpk",
        paper="Learning from randomly initialized neural network features (arXiv:2202.06438), "
        "section 2",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        self._prior()
        if self.into not in PLACES:
            raise ConfigError(f"nnpk: no place {self.into!r}: {nearest(self.into, PLACES)}")
        if not 1 <= self.code_bits <= 32 or not self.gain > 0.0:
            raise ConfigError(
                "nnpk: code_bits must be 1 to 32 and gain above 0, received "
                f"{self.code_bits} and {self.gain}."
            )

    def _prior(self) -> Prior:
        return Prior(
            self.n, self.depth, self.width, self.activation, self.bias_std, self.seed, self.norm
        )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with random features beside its model."""
        model = WithPriorFeatures(recipe.model, self._prior(), self.into, self.code_bits, self.gain)
        return replace(recipe, model=model)
