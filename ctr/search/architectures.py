"""The towers that a search chooses from, and what each of them costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.errors import ConfigError
from ctr.models.layers import saves, tower_macs

#: Every candidate has a line in a table of the compiled graph.
MOST = 1 << 16
#: A candidate meets a target if its cost is this near, as a share of the target.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Architectures:
    """All combinations of the options of independent decisions.

    Decision ``i`` is the width of hidden layer i, decision ``L + i`` its rank.

    Attributes:
        options: Per decision, what can be chosen: units, or ranks (0 for a whole layer).
        choices: int32[N, 2 * L], per candidate the number of the option of each decision.
        widths: int32[N, L], units.
        ranks: int32[N, L], 0 where the rank would save nothing and the layer stays whole.
        cost: float32[N], relative to the model that the search starts from.
    """

    options: tuple[tuple[int, ...], ...]
    choices: NDArray[np.int32]
    widths: NDArray[np.int32]
    ranks: NDArray[np.int32]
    cost: NDArray[np.float32]

    def near(self, target: float) -> NDArray[np.bool_]:
        """Returns bool[N], the candidates that meet a target.

        Raises:
            ConfigError: there are none.
        """
        near = np.asarray(np.abs(self.cost / target - 1.0) <= TOLERANCE)
        if not near.any():
            raise ConfigError(
                f"no tower costs within {TOLERANCE:.0%} of {target:.3g} times the base: the "
                f"{len(self.cost):,} candidates cost {self.cost.min():.3g} to "
                f"{self.cost.max():.3g} times as much. Offer more widths or ranks, or choose a "
                "target among these."
            )
        return near

    def settings(self, number: int) -> list[str]:
        """Returns candidate ``number`` as assignments to a recipe, as ``octr train --set`` takes.

        Ranks that save nothing are written as 0, and left out if there are no others.
        """
        ranks = self.ranks[number].tolist()
        return [
            f"model.hidden={self.widths[number].tolist()}",
            f"model.ranks={ranks if any(ranks) else []}",
        ]


def candidates(
    n_inputs: int,
    hidden: Sequence[int],
    ranks: Sequence[int],
    width_shares: Sequence[float],
    rank_shares: Sequence[float],
    n_tasks: int,
    macs_beside: float,
) -> Architectures:
    """Returns all towers whose layers have given shares of a base tower's units.

    The cost of a tower counts the multiply-adds of one example in all matrices of the model.

    Args:
        n_inputs: Numbers that the first hidden layer reads.
        hidden: Units of the base tower's layers.
        ranks: Their ranks, or empty; they enter the base's cost only.
        width_shares: Units of a candidate's layer, as shares of the base's.
        rank_shares: Its ranks, likewise; 0 for a whole layer.
        n_tasks: Outputs of the head.
        macs_beside: Multiply-adds per example that no candidate changes.

    Raises:
        ConfigError: there are no layers, or too many candidates.
    """
    if not hidden:
        raise ConfigError("a model without hidden layers has no widths to search. Set some.")
    widths = [_shares(n, width_shares) for n in hidden]
    lows = [_shares(n, rank_shares) for n in hidden]
    options = (*widths, *lows)
    n_candidates = math.prod(len(o) for o in options)
    if n_candidates > MOST:
        raise ConfigError(
            f"{len(width_shares)} widths and {len(rank_shares)} ranks of {len(hidden)} layers are "
            f"{n_candidates:,} towers, more than {MOST:,}. Offer fewer, or use fewer layers."
        )

    def macs(units: Sequence[int], low: Sequence[int]) -> float:
        return macs_beside + tower_macs(n_inputs, units, low) + units[-1] * n_tasks

    choices = list(itertools.product(*(range(len(o)) for o in options)))
    n = len(hidden)
    units, effective, cost = [], [], []
    for choice in choices:
        chosen = [options[d][c] for d, c in enumerate(choice)]
        sizes, low = chosen[:n], chosen[n:]
        below = [n_inputs, *sizes[:-1]]
        kept = [k if k and saves(m, s, k) else 0 for m, s, k in zip(below, sizes, low, strict=True)]
        units.append(sizes)
        effective.append(kept)
        cost.append(macs(sizes, kept) / macs(hidden, ranks))
    return Architectures(
        options, np.array(choices, np.int32), np.array(units, np.int32),
        np.array(effective, np.int32), np.array(cost, np.float32),
    )  # fmt: skip


def _shares(units: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Returns distinct shares of a number of units, at least 1 except for the share 0."""
    sizes = [max(1, round(share * units)) if share else 0 for share in shares]
    return tuple(dict.fromkeys(sizes))
