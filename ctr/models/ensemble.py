"""Several models of one kind side by side, which predict their mean."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Features, Forward, ModelConfig, Rows
from ctr.encoding import Layout
from ctr.errors import ConfigError

#: What is averaged.
MEANS = ("prob", "logit")
#: Distance between the seeds of two members; a run's own seeds are much smaller.
_STRIDE = 10_007


@dataclass(frozen=True)
class Ensemble:
    """``members`` copies of a model that differ in their initial values.

    Each member has its own embedding and wide columns in the fused table, so that one lookup
    serves all of them, and its own dense variables. They see the same examples in one launch.

    Attributes:
        base: The model of which there are copies.
        members: How many.
        mean: ``prob`` averages probabilities, which keeps the sum of the predictions what it is
            in the mean member; ``logit`` averages log-odds, which is below that for rare clicks.
    """

    base: ModelConfig
    members: int = 3
    mean: str = "prob"

    def __post_init__(self) -> None:
        check_ensemble(self.members, self.mean)

    @property
    def dim(self) -> int:
        """Embedding columns of all members."""
        return self.members * self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> EnsembleModel:
        """Creates the members; the first one is what the base alone would be."""
        return EnsembleModel(self, layout, n_tasks, seed)


class EnsembleModel(tf.Module):
    """The built form of :class:`Ensemble`."""

    def __init__(self, config: Ensemble, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="ensemble")
        self.members = [
            config.base.build(layout, n_tasks, seed + _STRIDE * i) for i in range(config.members)
        ]
        self.dim = config.dim
        self._base_dim = config.base.dim
        self._base_wide = getattr(self.members[0], "n_wide", n_tasks)
        self.n_wide = config.members * self._base_wide
        self._mean = config.mean
        wide = [member.wide for member in self.members if hasattr(member, "wide")]
        self.wide = _Parts(wide)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the mean logits float32[B, T].

        ``aux`` holds ``members``, their logits float32[k, B, T], and ``mean``, the logits of the
        ensemble, which a later calibration does not change.
        """
        outputs = [
            member(self._share(features, i), training).logits
            for i, member in enumerate(self.members)
        ]
        members = tf.stack(outputs)
        mean = mean_logits(members, self._mean)
        return Forward(mean, {"members": members, "mean": mean})

    def _share(self, features: Features, member: int) -> Features:
        def columns(values: tf.Tensor, width: int) -> tf.Tensor:
            return values[..., member * width : (member + 1) * width]

        rows = Rows(
            columns(features.rows.embedding, self._base_dim),
            columns(features.rows.wide, self._base_wide),
        )
        return features._replace(
            vectors=columns(features.vectors, self._base_dim),
            linear=columns(features.linear, self._base_wide),
            rows=rows,
        )


class _Parts(tf.Module):
    """The wide parts of all members, for the optimizer that moves such parts."""

    def __init__(self, parts: list[tf.Module]) -> None:
        super().__init__(name="wide")
        self.parts = parts


def check_ensemble(members: int, mean: str) -> None:
    """Refuses an ensemble that cannot be built.

    Raises:
        ConfigError: no members, or an unknown mean.
    """
    if members < 1:
        raise ConfigError(
            f"an ensemble needs at least 1 member, received {members}. Usual are 2 or 3."
        )
    if mean not in MEANS:
        raise ConfigError(f"ensemble: mean must be prob or logit, received {mean!r}.")


def mean_logits(members: tf.Tensor, mean: str) -> tf.Tensor:
    """Returns the logits float32[B, T] of the mean of ``members`` float32[k, B, T].

    Args:
        members: Logits of each member.
        mean: ``prob`` or ``logit``.
    """
    if members.shape[0] == 1:
        return members[0]
    if mean == "logit":
        return tf.reduce_mean(members, axis=0)
    # log(mean p) - log(mean (1 - p)), without leaving log space; both means divide by k.
    clicked = tf.reduce_logsumexp(tf.math.log_sigmoid(members), axis=0)
    not_clicked = tf.reduce_logsumexp(tf.math.log_sigmoid(-members), axis=0)
    return clicked - not_clicked
