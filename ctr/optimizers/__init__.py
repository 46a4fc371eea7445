"""Optimizers: row optimizers for the fused table, dense optimizers for everything else."""

from ctr.optimizers.dense import KerasOptimizer, Optimizers
from ctr.optimizers.rows import AdaGrad, Ftrl

__all__ = ["AdaGrad", "Ftrl", "KerasOptimizer", "Optimizers"]
