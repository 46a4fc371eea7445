"""Ingested examples in Vowpal Wabbit's text format, for running that peer on the same rows.

Every feature is a namespace of one letter, because the options that cross namespaces know them by
their first letter. Categories and tokens become feature names of weight 1, numbers a feature
with a value; what is missing is left out.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.bench.scoring import Rows
from ctr.data import manifest
from ctr.encoding import bags, columns, numbers
from ctr.errors import ConfigError
from ctr.schema import Feature, Schema

#: Characters with a meaning in the format; the escape character itself has to come first.
_ESCAPES = {
    "%": "%25", " ": "%20", ":": "%3A", "|": "%7C", "\t": "%09", "\n": "%0A", "\r": "%0D",
}  # fmt: skip


def write_vw_text(data_dir: Path, rows: Rows, names: Sequence[str], path: Path) -> None:
    """Writes all committed examples, one line each, in stream order.

    Args:
        data_dir: Folder written by ``octr ingest``.
        rows: Its labels and weights.
        names: Features to write, at most 26 and no crosses; the n-th gets the n-th letter.
        path: File to write.

    Raises:
        CtrError: a feature does not exist or cannot be written.
    """
    schema, shards = manifest.load(data_dir)
    features = chosen(schema, names)
    start = 0
    with path.open("wb") as file:
        for shard in shards:
            table = pq.read_table(data_dir / shard.file, columns=list(names))
            for batch in table.to_batches(max_chunksize=65_536):
                part = slice(start, start + batch.num_rows)
                lines = vw_lines(batch, features, rows.label[part], rows.weight[part])
                file.write("\n".join(lines.to_pylist()).encode() + b"\n")
                start += batch.num_rows


def chosen(schema: Schema, names: Sequence[str]) -> list[Feature]:
    """Returns the named features.

    Raises:
        CtrError: one does not exist or is a cross, or there are more than letters.
    """
    features = [schema.feature(name) for name in names]
    crosses = [feature.name for feature in features if feature.cross]
    if crosses:
        raise ConfigError(
            f"--features: {', '.join(crosses)} are crosses, which the peer makes itself. Name "
            "plain features; the grid crosses them."
        )
    if not 1 <= len(features) <= len(string.ascii_lowercase):
        raise ConfigError(
            f"--features: 1 to {len(string.ascii_lowercase)} can be told apart by a letter, "
            f"received {len(features)}."
        )
    return features


def vw_lines(
    batch: pa.RecordBatch,
    features: Sequence[Feature],
    label: NDArray[np.int8],
    weight: NDArray[np.float32],
) -> pa.Array:
    """Returns one line of text per row.

    Args:
        batch: n rows with a column per feature.
        features: What to write, in order.
        label: int8[n]; -1 (unknown) makes a line that is predicted but not learned.
        weight: float32[n], importance of the row.
    """
    signs = np.select([label == 1, label == 0], ["1 ", "-1 "], "")
    weights = np.where((label >= 0) & (weight != 1), np.char.mod("%g ", weight), "")
    parts = [pa.array(np.char.add(signs, weights))]
    for letter, feature in zip(string.ascii_lowercase, features, strict=False):
        array = columns.column(batch, feature, "the shards")
        parts.append(_prefixed(_names(array, feature), f"|{letter} "))
    lines = pc.binary_join_element_wise(*parts, "")
    # An empty line is no example at all, one with a bare namespace is the constant alone.
    bare = pc.binary_join_element_wise(lines, "|", "")
    return pc.if_else(pc.match_substring(lines, "|"), lines, bare)


def escaped(text: pa.Array) -> pa.Array:
    """Returns strings in which nothing has a meaning in the format; distinct ones stay distinct."""
    for character, replacement in _ESCAPES.items():
        text = pc.replace_substring(text, character, replacement)
    return text


def _names(array: pa.Array, feature: Feature) -> pa.Array:
    """Returns what stands in a feature's namespace, "" where the value is missing."""
    if feature.kind == "numeric":
        return _numbers(array, feature)
    if feature.kind == "bag":
        bag = bags.tokens(array, feature, "the shards")
        words = escaped(pc.cast(bag.values, pa.string()))
        offsets = pa.array(bag.offsets.astype(np.int32))
        return pc.binary_join(pa.ListArray.from_arrays(offsets, words), " ")
    text = columns.strings(array, feature, "the shards")
    if pa.types.is_dictionary(text.type):
        text = text.dictionary_decode()
    return escaped(pc.fill_null(pc.cast(text, pa.string()), ""))


def _numbers(array: pa.Array, feature: Feature) -> pa.Array:
    values = numbers.finite(array, feature, Counter(), "the shards")
    missing = np.isnan(values)
    if feature.bins:
        text = np.char.mod("bin%d", numbers.bin_ids(values, feature))
    else:
        if feature.log:
            values = np.sign(values) * np.log1p(np.abs(values))
        text = np.char.mod("x:%.7g", np.where(missing, 0.0, values))
    return pa.array(np.where(missing, "", text))


def _prefixed(text: pa.Array, prefix: str) -> pa.Array:
    whole = pc.binary_join_element_wise(prefix, text, " ", "")
    return pc.if_else(pc.equal(text, ""), "", whole)
