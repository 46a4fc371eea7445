"""Does a model over- or under-predict some slices more than others? One number per slicing.

For the values of a slicing, clicks are compared with what was predicted, after both were brought
to the same total: a wrong level of all predictions is another monitor's business. The squared
errors in units of chance add up to a chi-square variable, which the cube root makes nearly normal
(Wilson and Hilferty), so that one limit fits slicings of two values and of fifty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.metrics.slices import OTHER, SliceValues

#: Values per slicing that are told apart.
_VALUES = 50
#: Least variance of the clicks of a value; values with less of it are taken together.
_ENOUGH = 5.0
_TINY = 1e-9

Floats = NDArray[np.float64]


class SliceCalibration:
    """Measures how differently the slices of a window are calibrated.

    Args:
        slices: Columns to slice by.
    """

    def __init__(self, slices: Sequence[str]) -> None:
        self._values = {name: SliceValues(_VALUES) for name in slices}

    @property
    def names(self) -> list[str]:
        """One monitor per slicing."""
        return [f"calibration by {name}" for name in self._values]

    def encode(self, frame: pa.RecordBatch) -> NDArray[np.int64]:
        """Returns the numbers of the values of each row, int64[n, S]."""
        codes = [values.encode(frame.column(name)) for name, values in self._values.items()]
        return np.column_stack(codes) if codes else np.zeros((frame.num_rows, 0), np.int64)

    def measure(self, codes: NDArray[np.int64], scores: Floats) -> tuple[list[float], list[str]]:
        """Returns a standard normal number per slicing, if all is well, and its worst value.

        Args:
            codes: int64[n, S] of :meth:`encode`.
            scores: float64[n, 3]: probability, label (-1 is unknown) and weight.
        """
        known = scores[:, 1] >= 0
        prob, label, weight = scores[known].T
        # One level for all slices; a window without clicks says nothing about slices.
        level = (weight * label).sum() / max((weight * prob).sum(), _TINY)
        prob = np.clip(level * prob, 0.0, 1.0)
        parts = np.column_stack([
            weight * label, weight * prob, weight**2 * prob * (1.0 - prob)
        ])  # fmt: skip
        numbers, worst = [], []
        for s, (name, values) in enumerate(self._values.items()):
            sums = np.zeros((_VALUES + 1, 3))
            np.add.at(sums, codes[known, s], parts)
            number, at = _deviation(sums)
            numbers.append(number)
            said = [*values.names, OTHER][at] if at < len(values.names) else OTHER
            ratio = sums[at, 1] / max(sums[at, 0], _TINY)
            worst.append(f"{name} = {said}, predicted / observed {ratio:.2f}")
        return numbers, worst

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns the values by number."""
        return {f"slice:{n}": np.array(v.names, np.str_) for n, v in self._values.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over what :meth:`state_dict` gave."""
        for name in self._values:
            names = tuple(str(value) for value in state[f"slice:{name}"])
            self._values[name] = SliceValues(_VALUES, names)


def _deviation(sums: Floats) -> tuple[float, int]:
    """Returns the deviation of one slicing and the value that deviates most.

    Args:
        sums: float64[n_values, 3]: clicks, predicted clicks and their variance.
    """
    enough = sums[:, 2] >= _ENOUGH
    groups = sums[enough]
    rest = sums[~enough].sum(axis=0)
    if rest[2] >= _ENOUGH:
        groups = np.vstack([groups, rest])
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(enough, np.abs(sums[:, 0] - sums[:, 1]) / np.sqrt(sums[:, 2]), 0.0)
    worst = int(np.argmax(np.nan_to_num(errors)))
    free = len(groups) - 1
    if free < 1:
        return 0.0, worst
    square = float(((groups[:, 0] - groups[:, 1]) ** 2 / groups[:, 2]).sum())
    spread = 2.0 / (9.0 * free)
    return ((square / free) ** (1.0 / 3.0) - (1.0 - spread)) / float(np.sqrt(spread)), worst
