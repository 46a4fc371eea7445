"""The research module: training with differential privacy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import StatefulTransform
from ctr.calibration import NoCalibration
from ctr.encoding import Layout
from ctr.errors import ConfigError, ModuleError, nearest
from ctr.losses import LogLoss
from ctr.module import ModuleInfo
from ctr.optimizers import KerasOptimizer
from ctr.recipe import Recipe
from research_modules.dp_training.accounting import (
    sampled_epsilon,
    single_pass_epsilon,
    single_pass_noise,
)
from research_modules.dp_training.noise import MECHANISMS
from research_modules.dp_training.recording import Recorded
from research_modules.dp_training.rows import MODES, RowDescent
from research_modules.dp_training.update import PrivateUpdate


@dataclass(frozen=True)
class WithoutNumerics:
    """Leaves out numeric features: the running statistics that standardize them are not private.

    Give a number ``bins`` in the schema to keep it as a categorical feature.
    """

    def extend(self, layout: Layout) -> Layout:
        """Returns the layout without numerics."""
        return replace(layout, numeric=())

    def __call__(self, ids: tf.Tensor, numeric: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ``ids`` and no numbers, float32[B, 0]."""
        return ids, numeric[:, :0]


@dataclass(frozen=True)
class DpTraining:
    """Clips each example's gradient, adds noise to the sum of many batches, and says what it means.

    Everything else that a learner keeps from the data is taken out: the calibrator, statistics of
    numeric features, counts of ids. An example is in exactly one release of a chronological pass,
    so the guarantee is that of one Gaussian mechanism, and nothing is gained by sampling, because
    nothing is sampled. Its sentence is in a replay's report.

    Paper: Anil et al. 2022, "Large-scale differentially private BERT" (arXiv:2108.01624),
        sections 2 to 4; Denisov et al. 2022 (arXiv:2202.08312) for correlated noise; Ghazi et al.
        2023 (arXiv:2311.08357), Algorithm 1, for ``adafest``.
    Deviations: a single chronological pass accounted as such, where the paper samples batches;
        table rows descend plainly in place of AdaGrad; per-example norms from layer inputs and
        outputs, not from per-example gradients; correlated noise is cut off after ``kept`` draws
        and its size computed for exactly that; ``adafest`` moves at most ``most_rows`` rows.
    Reduces to: with no noise, a bound that no gradient reaches and one batch per release, plain
        training of the same recipe.

    Attributes:
        epsilon: The guarantee aimed at; not used if ``noise`` is given. ``inf`` only clips, which
            is the control that shows what clipping costs alone.
        delta: The probability with which it may fail; below one over the number of units.
        noise: Noise multiplier; 0 computes it from ``epsilon``.
        clip: Bound on the norm of an example's gradient. If it cuts clicks more than the rest,
            predictions are too low: watch calibration.
        batches: Batches in a release.
        grow_below: Noisy signal-to-noise ratio below which ``batches`` doubles; 0 never.
        most_batches: Bound on that.
        mechanism: ``independent``; or ``sqrt_toeplitz``, whose noise cancels over releases and
            which needs plain descent (``optimizer.tower.name=SGD``, ``optimizer.head.name=SGD``).
        kept: Draws that correlated noise is made of.
        releases: Most releases of a run with correlated noise.
        rows: ``dense`` noise on all rows of the table, or ``adafest``.
        share: Share of the budget for the histogram of touched rows.
        threshold: Noisy count from which ``adafest`` moves a row.
        most_rows: Rows that ``adafest`` moves in one release at most.
        row_rate: Rate of plain descent on table rows.
        user: Categorical feature that tells users apart; empty protects single examples.
        per_user: Examples of a user that are learned, no two of them in one release.
        sampling: How batches are formed; only ``chronological`` is offered.
    """

    epsilon: float = 8.0
    delta: float = 1e-6
    noise: float = 0.0
    clip: float = 4.0
    batches: int = 4
    grow_below: float = 0.0
    most_batches: int = 64
    mechanism: str = "independent"
    kept: int = 16
    releases: int = 1024
    rows: str = "dense"
    share: float = 0.1
    threshold: float = 4.0
    most_rows: int = 4096
    row_rate: float = 0.003
    user: str = ""
    per_user: int = 1
    sampling: str = "chronological"

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="dp_training",
        paper="Large-scale differentially private BERT (arXiv:2108.01624), sections 2 to 4",
        replaces=frozenset({"update", "calibrator"}),
        extends=frozenset({"model", "features", "optimizer"}),
    )

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mechanism", self.mechanism, MECHANISMS), ("rows", self.rows, MODES),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"dp_training: {name} {value!r}: {nearest(value, known)}")
        if self.sampling != "chronological":
            raise ConfigError(self._no_sampling())
        if min(self.epsilon, self.clip, self.row_rate) <= 0.0 or not 0.0 < self.delta < 1.0:
            raise ConfigError(
                "dp_training: epsilon, clip and row_rate must be above 0 and delta between 0 and "
                f"1, received {self.epsilon}, {self.clip}, {self.row_rate} and {self.delta}."
            )
        if self.noise < 0.0 or self.grow_below < 0.0 or not 0.0 < self.share < 1.0:
            raise ConfigError(
                "dp_training: noise and grow_below must be at least 0 and share between 0 and 1, "
                f"received {self.noise}, {self.grow_below} and {self.share}."
            )
        counts = (self.batches, self.most_batches, self.kept, self.releases, self.most_rows)
        if min(*counts, self.per_user) < 1:
            raise ConfigError(
                "dp_training: batches, most_batches, kept, releases, most_rows and per_user must "
                f"be at least 1, received {counts} and {self.per_user}."
            )
        if self.per_user > 1 and not self.user:
            raise ConfigError(
                f"dp_training: per_user = {self.per_user} needs `user`, the feature that tells "
                "users apart."
            )
        if self.mechanism == "sqrt_toeplitz" and (self.per_user > 1 or self.rows != "dense"):
            raise ConfigError(
                "dp_training: the size of correlated noise is known for units that take part "
                "once, on a fixed set of rows. Set per_user = 1 and rows = dense, or use "
                "mechanism = independent."
            )

    def _no_sampling(self) -> str:
        noise = self.noise or single_pass_noise(1.0, self.delta)
        false = sampled_epsilon(noise, 0.001, 1000, self.delta)
        true = single_pass_epsilon(noise, self.delta)
        return (
            f"dp_training: sampling {self.sampling!r} is refused: this learner sees each example "
            "once, in the order of the log, so no accounting for sampled batches applies. It would "
            f"claim epsilon = {false:.3g} (1,000 batches of a thousandth); {true:.3g} is true. "
            "Leave sampling at chronological."
        )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with private training.

        Raises:
            ConfigError: ``dp-accounting`` is missing, or correlated noise meets an optimizer that
                is not linear.
        """
        noise = self.noise or single_pass_noise(self.epsilon, self.delta, self.per_user)
        epsilon = single_pass_epsilon(noise, self.delta, self.per_user)
        optimizer = recipe.optimizer
        if self.mechanism == "sqrt_toeplitz":
            for name in ("head", "tower"):
                part = getattr(optimizer, name)
                if not (isinstance(part, KerasOptimizer) and part.name == "SGD"):
                    raise ConfigError(
                        f"dp_training: correlated noise only cancels under plain descent, but "
                        f"optimizer.{name} is {getattr(part, 'name', type(part).__name__)}. Set "
                        f"optimizer.{name}.name=SGD with a rate for it."
                    )
        update = PrivateUpdate(
            self.clip, noise, self.delta, epsilon, self.mechanism, self.kept, self.releases,
            self.rows, self.share, self.threshold, self.most_rows, self.batches,
            max(self.most_batches, self.batches), self.grow_below, self.user, self.per_user,
        )  # fmt: skip
        rows = RowDescent(self.row_rate)
        return replace(
            recipe,
            model=Recorded(recipe.model, self.user),
            features=(*recipe.features, WithoutNumerics()),
            optimizer=replace(optimizer, embedding=rows, linear=rows),
            update=update,
            calibrator=NoCalibration(),
        )

    def check(self, recipe: Recipe) -> None:
        """Refuses recipes in which something else learns from the data, or examples meet.

        Raises:
            ModuleError: the guarantee would not hold.
        """
        if not isinstance(recipe.loss, LogLoss):
            raise ModuleError(
                f"dp_training needs a loss that belongs to one example, but the loss is "
                f"{type(recipe.loss).__name__}. Use it without modules that change the loss."
            )
        if not isinstance(recipe.update, PrivateUpdate) or not isinstance(
            recipe.calibrator, NoCalibration
        ):
            raise ModuleError(
                "dp_training: a later module changed the update or the calibrator, which would "
                "read raw labels. Do without that module."
            )
        for transform in recipe.features:
            if isinstance(transform, StatefulTransform):
                raise ModuleError(
                    f"dp_training: {type(transform).__name__} learns from raw examples without "
                    "noise. Do without the module that brings it."
                )
