"""Large batches, four optimizers, one tuning protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.errors import ConfigError, nearest
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from research_modules.large_batch.optimizers import TableAsLayer, TowerRule
from research_modules.large_batch.rules import RULES

__all__ = ["LargeBatch", "TableAsLayer", "TowerRule"]

TABLES = ("rows", "layer")


@dataclass(frozen=True)
class LargeBatch:
    """Puts Nesterov, Adam, LARS or LAMB in the place of the tower's optimizer.

    The result worth having is the comparison: tuned with equal trials, none of the four is needed
    for large batches. The table is no layer: it keeps its row optimizer, since the norm of a whole
    table grows with the vocabulary while its gradient holds the batch's rows only.

    Paper: Nado, Gilmer, Shallue, Anil, Dahl 2021, "A Large Batch Optimizer Reality Check:
    Traditional, Generic Optimizers Suffice Across Batch Sizes" (arXiv:2102.06356); LARS
    (arXiv:1708.03888); LAMB (arXiv:1904.00962), no clipping of the norm.
    Deviations: matrices of one column (the output layer of one label) are on the skip list with
        the vectors. Without ``total_steps`` the rate stays after its warm-up: a stream has no end.
    Reduces to: LARS with a ratio of 1 and no decay to heavy-ball momentum, LAMB with a ratio of 1
        to AdamW.

    Attributes:
        optimizer: ``nesterov``, ``lars``, ``adam`` or ``lamb``.
        rate: Peak learning rate; tune it for each optimizer and each batch size.
        one_minus_beta1: 1 - momentum.
        weight_decay: L2 in the gradient before the momentum for nesterov and lars, decoupled for
            adam and lamb.
        warmup_steps: Batches over which the rate rises from 0.
        total_steps: Batches until it has fallen to ``end_rate``; 0 keeps it after the warm-up.
        power: Power of that fall.
        end_rate: Last rate.
        beta2: Of adam and lamb.
        epsilon: Of adam and lamb.
        trust: Trust coefficient of lars.
        variant: ``mlperf`` or ``optax``: the denominator of lars' ratio, ``|g| + decay |w|`` or
            ``|g + decay w|``.
        tables: ``rows`` leaves the table to its row optimizer. ``layer`` treats the embeddings as
            one more layer, as a pipeline without a map of its parameters would: a baseline to
            measure, not one to use. It costs time in proportion to the table.
        table_rate: Peak rate of the embeddings as a layer; 0 takes ``rate``.
    """

    optimizer: str = "adam"
    rate: float = 1e-3
    one_minus_beta1: float = 0.1
    weight_decay: float = 0.0
    warmup_steps: int = 0
    total_steps: int = 0
    power: float = 2.0
    end_rate: float = 1e-4
    beta2: float = 0.99
    epsilon: float = 1e-8
    trust: float = 1e-3
    variant: str = "mlperf"
    tables: str = "rows"
    table_rate: float = 0.0

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="large_batch",
        paper="A Large Batch Optimizer Reality Check (arXiv:2102.06356)",
        extends=frozenset({"optimizer"}),
    )

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, RULES),
            ("variant", self.variant, ("mlperf", "optax")),
            ("tables", self.tables, TABLES),
        ):
            if value not in known:
                raise ConfigError(f"large_batch: {name} {value!r}: {nearest(value, known)}")
        if self.table_rate and self.tables != "layer":
            raise ConfigError(
                "large_batch: table_rate is that of a table as a layer; set tables = 'layer', or "
                "tune optimizer.embedding.rate."
            )
        if self.table_rate < 0.0:
            raise ConfigError(
                f"large_batch: table_rate must be at least 0, received {self.table_rate}."
            )
        self._rule(self.rate)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this optimizer for the tower."""
        optimizers = replace(recipe.optimizer, tower=self._rule(self.rate))
        if self.tables == "layer":
            as_layer = TableAsLayer(self._rule(self.table_rate or self.rate))
            optimizers = replace(optimizers, embedding=as_layer)
        return replace(recipe, optimizer=optimizers)

    def _rule(self, rate: float) -> TowerRule:
        return TowerRule(
            self.optimizer, rate, self.one_minus_beta1, self.weight_decay, self.warmup_steps,
            self.total_steps, self.power, self.end_rate, self.beta2, self.epsilon, self.trust,
            self.variant == "mlperf",
        )  # fmt: skip
