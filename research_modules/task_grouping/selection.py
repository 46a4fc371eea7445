"""Which groups of tasks to train: the exact best cover by at most so many networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.errors import ConfigError

Group = tuple[int, ...]
#: What the authors' notebook gives a task that is alone: forbidden unless nothing else is left.
FORBIDDEN = -1e6
#: More tasks have too many subsets to list.
MAX_TASKS = 14


@dataclass(frozen=True)
class Cover:
    """Groups that together hold every task.

    Attributes:
        groups: Ascending task numbers each; a task may be in several.
        served: For each task, the place of the group that predicts it.
        score: Sum over tasks of the affinity of the best group for each.
    """

    groups: tuple[Group, ...]
    served: tuple[int, ...]
    score: float


def group_scores(affinity: NDArray[np.float64], group: Group, alone: float) -> NDArray[np.float64]:
    """Returns what a group is worth to each task, float64[T]; minus infinity to outsiders.

    A member gets the mean of the other members' affinities onto it.

    Args:
        affinity: float64[T, T], ``[i, j]`` the effect of training i on j.
        group: Task numbers.
        alone: Worth of being the only member.
    """
    scores = np.full(len(affinity), -np.inf)
    for task in group:
        partners = [other for other in group if other != task]
        scores[task] = np.mean(affinity[partners, task]) if partners else alone
    return scores


def best_cover(affinity: NDArray[np.float64], budget: int, alone: float = FORBIDDEN) -> Cover:
    """Returns the cover of highest score by at most ``budget`` groups, by branch and bound.

    Ties go to fewer groups, then to fewer members, then to the smaller task numbers.

    Args:
        affinity: float64[T, T], ``[i, j]`` the effect of training i on j; its diagonal is unused.
        budget: Most networks.
        alone: Worth of a task that is alone; 0 lets single tasks compete with bad company.

    Raises:
        ConfigError: the matrix is not square or finite, or the budget is below 1.
    """
    affinity = np.asarray(affinity, float)
    n = len(affinity)
    if affinity.shape != (n, n) or not 1 <= n <= MAX_TASKS or not np.isfinite(affinity).all():
        raise ConfigError(
            f"affinities have to be a finite square matrix of 1 to {MAX_TASKS} tasks, received "
            f"shape {affinity.shape}."
        )
    if budget < 1:
        raise ConfigError(f"a cover needs a budget of at least 1 network, received {budget}.")
    groups = list(_subsets(n))
    scores = np.stack([group_scores(affinity, group, alone) for group in groups])
    # What the subsets from here on can still give each task: no choice of them does better.
    ahead = np.maximum.accumulate(scores[::-1])[::-1]
    best: tuple[float, int, int, tuple[Group, ...]] | None = None

    def search(start: int, chosen: tuple[int, ...], now: NDArray[np.float64]) -> None:
        nonlocal best
        if np.isfinite(now).all():
            found = (
                -round(float(now.sum()), 12), len(chosen), sum(len(groups[c]) for c in chosen),
                tuple(groups[c] for c in chosen),
            )  # fmt: skip
            if best is None or found < best:
                best = found
        if len(chosen) == budget:
            return
        for place in range(start, len(groups)):
            bound = float(np.maximum(now, ahead[place]).sum())
            if not np.isfinite(bound) or (best is not None and bound < -best[0] - 1e-9):
                return
            search(place + 1, (*chosen, place), np.maximum(now, scores[place]))

    search(0, (), np.full(n, -np.inf))
    assert best is not None  # the group of all tasks covers them
    return cover_of(affinity, best[3], alone)


def cover_of(affinity: NDArray[np.float64], groups: Sequence[Group], alone: float) -> Cover:
    """Returns given groups with their score, every task served by its best group.

    Raises:
        ConfigError: a task is in no group.
    """
    scores = np.stack([group_scores(np.asarray(affinity), g, alone) for g in groups])
    if not np.isfinite(scores.max(axis=0)).all():
        raise ConfigError(f"the groups {list(groups)} do not hold every task.")
    served = tuple(int(place) for place in scores.argmax(axis=0))
    return Cover(tuple(groups), served, float(scores.max(axis=0).sum()))


def partitions(n_tasks: int) -> Iterator[tuple[Group, ...]]:
    """Yields every way to split the tasks into groups without overlap."""
    if n_tasks == 0:
        yield ()
        return
    for smaller in partitions(n_tasks - 1):
        new = n_tasks - 1
        for place, group in enumerate(smaller):
            yield (*smaller[:place], (*group, new), *smaller[place + 1 :])
        yield (*smaller, (new,))


def stability(
    ratio: NDArray[np.float64], count: NDArray[np.float64], budget: int, alone: float, draws: int
) -> dict[tuple[Group, ...], float]:
    """Returns how often each cover is chosen when parts of the window are drawn again.

    A regrouping restarts learning: do it only if the present cover is hardly ever chosen.

    Args:
        ratio: float64[N, T, T], sums of affinities by part of the window.
        count: float64[N, T, T], how many.
        budget: Most networks.
        alone: Worth of a task that is alone.
        draws: Bootstrap samples.
    """
    rng = np.random.default_rng(0)
    found: dict[tuple[Group, ...], int] = {}
    for _ in range(draws):
        drawn = rng.integers(len(ratio), size=len(ratio))
        above, below = ratio[drawn].sum(axis=0), count[drawn].sum(axis=0)
        mean = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        groups = best_cover(mean, budget, alone).groups
        found[groups] = found.get(groups, 0) + 1
    return {g: n / draws for g, n in sorted(found.items(), key=lambda item: -item[1])}


def _subsets(n: int) -> Iterator[Group]:
    for size in range(1, n + 1):
        yield from itertools.combinations(range(n), size)
