"""Which features a prediction rests on: what its logit loses when a group of them is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import ConfigError, SchemaError, nearest
from ctr.schema import Feature, Schema
from serving.predictor import Predictor
from serving.signatures import DEFAULT, QUALITY

Groups = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Explanation:
    """Credits of N rows.

    Attributes:
        groups: Names of the G groups.
        logits: float64[N], of the first label; in the reference treatment if there is one.
        credits: float64[N, G], logit of the whole row less that without the group.
        quality: True if the logits are those of the reference treatment.
    """

    groups: tuple[str, ...]
    logits: NDArray[np.float64]
    credits: NDArray[np.float64]
    quality: bool

    @property
    def mean_absolute(self) -> NDArray[np.float64]:
        """How much each group matters over all rows, float64[G]."""
        return np.abs(self.credits).mean(axis=0)

    def row(self, number: int) -> dict[str, Any]:
        """Returns one row's explanation as plain data, the largest credit first."""
        order = np.argsort(-np.abs(self.credits[number]), kind="stable")
        logit = float(self.logits[number])
        return {
            "logit": logit,
            "probability": float(1.0 / (1.0 + np.exp(-logit))),
            "credits": {self.groups[g]: float(self.credits[number, g]) for g in order},
        }


def parse_groups(schema: Schema, assignments: Sequence[str]) -> Groups:
    """Reads ``group=feature,feature``; each feature in no group is one of its own.

    Raises:
        ConfigError: a feature is unknown or in two groups, or a group has no features.
    """
    known = [feature.name for feature in schema.features if not feature.cross]
    groups: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        members = tuple(member for member in text.split(",") if member)
        if not name or not members:
            raise ConfigError(f"--group {assignment!r}: expected NAME=FEATURE,FEATURE.")
        for member in members:
            if member not in known:
                raise ConfigError(f"--group {assignment!r}: {nearest(member, known)}")
            if member in taken:
                raise ConfigError(f"--group {assignment!r}: {member} is in a group already.")
            taken.add(member)
        groups[name] = groups.get(name, ()) + members
    return groups | {name: (name,) for name in known if name not in taken}


def explain(predictor: Predictor, rows: pa.Table, groups: Groups) -> Explanation:
    """Leaves one group after the other out of every row.

    A left-out feature counts as missing, so its crosses become those of a missing value. Credits
    of groups that interact overlap: they need not sum to the logit. Where the model has a quality
    signature, its logit is explained, and presentation gets no credit.

    Args:
        predictor: The model.
        rows: Columns of its features.
        groups: Features by group.

    Raises:
        SchemaError: there are no rows, or a column is missing or of a wrong type.
    """
    if not rows.num_rows:
        raise SchemaError("there are no rows to explain.")
    quality = QUALITY in predictor.manifest["signatures"]
    features = {f.name: f for f in predictor.encoder.schema.features if not f.cross}

    def logits(table: pa.Table) -> NDArray[np.float64]:
        found = predictor.outputs(table, QUALITY if quality else DEFAULT)
        values = found["quality_logits" if quality else "logits"].astype(np.float64)
        return values.reshape(rows.num_rows, -1)[:, 0]

    whole = logits(rows)
    shown = tuple(
        name
        for name, members in groups.items()
        if not (quality and all(features[member].ui for member in members))
    )
    credits = [whole - logits(_without(rows, [features[m] for m in groups[g]])) for g in shown]
    columns = np.stack(credits, axis=1) if credits else np.zeros((rows.num_rows, 0))
    return Explanation(shown, whole, columns, quality)


def plot(explanation: Explanation, path: Path) -> None:
    """Draws how much each group matters, by the median row, its quartiles and extremes."""
    from matplotlib.figure import Figure

    from ctr.report.svg import LIGHT, themed

    order = np.argsort(explanation.mean_absolute, kind="stable")
    names = [explanation.groups[g] for g in order]
    line = {"color": LIGHT.series[0]}
    with themed(LIGHT):
        figure = Figure(figsize=(6.4, max(1.8, 0.9 + 0.3 * len(names))), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0.0, color=LIGHT.ink, lw=0.8)
        axes.boxplot(
            explanation.credits[:, order], orientation="horizontal", whis=(0, 100), widths=0.55,
            boxprops=line, whiskerprops=line, capprops=line, medianprops={"color": LIGHT.ink},
        )  # fmt: skip
        axes.set_yticks(range(1, len(names) + 1), names, color=LIGHT.ink)
        what = "quality logit" if explanation.quality else "logit"
        axes.set_xlabel(f"{what} lost when the group is missing ({len(explanation.logits):,} rows)")
        axes.grid(axis="y", visible=False)
        figure.savefig(path, dpi=150)


def _without(rows: pa.Table, features: Sequence[Feature]) -> pa.Table:
    for feature in features:
        if feature.name in rows.column_names:
            place = rows.column_names.index(feature.name)
            kind = rows.schema.field(place).type
            rows = rows.set_column(place, feature.name, pa.nulls(rows.num_rows, kind))
    return rows
