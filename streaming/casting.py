"""Casts of whole Arrow columns in which one bad value spoils its own row only."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.errors import SchemaError

Mask = NDArray[np.bool_]

_INTEGER = r"^[+-]?[0-9]{1,19}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:nan|inf|infinity)$"
_ZONED = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: Years 1678 to 2261: beyond, nanosecond arithmetic of downstream tools overflows.
TIME_LIMIT_US = 9_214_646_400_000_000


def is_text(kind: pa.DataType) -> bool:
    """True for string and large_string."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def decoded(column: pa.Array) -> pa.Array:
    """Returns the column without dictionary encoding."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def to_strings(column: pa.Array, where: str) -> pa.Array:
    """Casts to ``string``.

    Raises:
        SchemaError: the type has no one spelling (floats, lists, structs).
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_string(kind):
        return column
    plain = is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if plain or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_floating(kind):
        raise SchemaError(
            f"{where}: expected strings or integers, received {kind}. A float has no one "
            'spelling: write integers or strings, or declare kind = "numeric".'
        )
    hint = ' Declare kind = "bag".' if pa.types.is_list(kind) else " Fix the writer."
    raise SchemaError(f"{where}: expected strings or integers, received {kind}.{hint}")


def to_numbers(column: pa.Array, kind: pa.DataType, where: str) -> tuple[pa.Array, Mask | None]:
    """Casts to a float or integer type.

    Returns:
        The cast column (null where the value was null or bad) and the mask of bad values, or
        None if there are none.

    Raises:
        SchemaError: the column has a type that can hold no number.
    """
    column = decoded(column)
    if is_text(column.type):
        pattern = _INTEGER if pa.types.is_integer(kind) else _NUMBER
        return _cast_text(column, kind, pattern)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if pa.types.is_boolean(column.type):
        return pc.cast(pc.cast(column, pa.int8()), kind), None
    if not numeric and not pa.types.is_null(column.type) and not pa.types.is_decimal(column.type):
        raise SchemaError(f"{where}: expected numbers, received {column.type}. Fix the writer.")
    if pa.types.is_floating(kind):
        return pc.cast(column, kind, safe=False), None
    try:
        return pc.cast(column, kind), None
    except pa.ArrowInvalid:
        return _cast_halves(column, kind)


def to_times(column: pa.Array, clock: str, where: str) -> tuple[NDArray[np.int64], Mask]:
    """Reads event times.

    Args:
        column: Raw values; a timestamp or date type is taken as it is, whatever ``clock`` says.
        clock: ``s``, ``ms``, ``us``, ``ns``, ``iso`` or a ``strptime`` format.
        where: For messages.

    Returns:
        int64[n] microseconds since the epoch (0 where bad) and the mask of bad or missing times.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = pc.cast(
            pc.cast(column, pa.timestamp("us", kind.tz), safe=False)
            if pa.types.is_timestamp(kind)
            else pc.cast(column, pa.timestamp("us")),
            pa.int64(),
        )
    elif clock in _PER_SECOND:
        stamps = _scaled(column, clock, where)
    elif clock == "iso":
        stamps = _from_iso(to_strings(column, where))
    else:
        stamps = _from_format(to_strings(column, where), clock)
    bad = stamps.is_null().to_numpy(zero_copy_only=False)
    times = pc.fill_null(stamps, 0).to_numpy(zero_copy_only=False)
    bad = bad | (np.abs(times) > TIME_LIMIT_US)
    return np.where(bad, 0, times), bad


def _scaled(column: pa.Array, unit: str, where: str) -> pa.Array:
    """Epoch numbers to int64 microseconds; fractions of a second are kept, null where bad."""
    per_second = _PER_SECOND[unit]
    whole = pa.types.is_integer(column.type)
    if is_text(column.type):
        values, bad = _cast_text(column, pa.int64(), _INTEGER)
        whole = bad is None
    elif whole:
        values = pc.cast(column, pa.int64(), safe=False)
    if whole:
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        if per_second <= 1_000_000:
            factor = 1_000_000 // per_second
            good = np.abs(numbers) <= TIME_LIMIT_US // factor
            scaled = np.where(good, numbers, 0) * factor
        else:
            good, scaled = np.ones(len(numbers), np.bool_), numbers // (per_second // 1_000_000)
    else:
        reals, _ = to_numbers(column, pa.float64(), where)
        numbers = pc.fill_null(reals, np.nan).to_numpy(zero_copy_only=False)
        micros = numbers * (1_000_000 / per_second)
        good = np.abs(micros) <= TIME_LIMIT_US  # False for NaN
        scaled = np.rint(np.where(good, micros, 0.0)).astype(np.int64)
        values = reals
    missing = values.is_null().to_numpy(zero_copy_only=False)
    return pa.array(scaled, mask=missing | ~good)


def _from_format(strings: pa.Array, clock: str) -> pa.Array:
    """``strptime`` of whole columns; a final ``%f`` takes the digits behind fixed-width fields."""
    if not clock.endswith("%f"):
        return pc.cast(pc.strptime(strings, clock, "us", error_is_null=True), pa.int64())
    head = clock.removesuffix("%f")
    width = len(head.replace("%Y", "0000").replace("%", "0"))
    whole = pc.strptime(pc.utf8_slice_codeunits(strings, 0, width), head, "us", error_is_null=True)
    digits = pc.utf8_slice_codeunits(strings, width, width + 6)
    fraction, _ = _cast_text(pc.utf8_rpad(digits, 6, "0"), pa.int64(), r"^[0-9]{6}$")
    return pc.add(pc.cast(whole, pa.int64()), fraction)


def _from_iso(strings: pa.Array) -> pa.Array:
    zoned = pc.fill_null(pc.match_substring_regex(strings, _ZONED), False)
    nothing = pa.scalar(None, pa.string())
    with_zone, _ = _cast_halves(pc.if_else(zoned, strings, nothing), pa.timestamp("us", "UTC"))
    without, _ = _cast_halves(pc.if_else(zoned, nothing, strings), pa.timestamp("us"))
    return pc.coalesce(pc.cast(with_zone, pa.int64()), pc.cast(without, pa.int64()))


def _cast_text(strings: pa.Array, kind: pa.DataType, pattern: str) -> tuple[pa.Array, Mask | None]:
    try:
        return pc.cast(strings, kind), None
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(strings)
        if pa.types.is_integer(kind):
            trimmed = pc.replace_substring_regex(trimmed, r"^\+", "")
        plausible = pc.match_substring_regex(trimmed, pattern)
        checked = pc.if_else(plausible, trimmed, pa.scalar(None, trimmed.type))
        values, _ = _cast_halves(checked, kind)
        return values, _newly_null(strings, values)


def _cast_halves(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask | None]:
    """Casts what can be cast; halves the column around each bad value, which becomes null."""
    try:
        return pc.cast(column, kind), None
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind), np.ones(1, np.bool_)
        middle = len(column) // 2
        parts = [_cast_halves(part, kind)[0] for part in (column[:middle], column[middle:])]
        values = pa.concat_arrays(parts)
        return values, _newly_null(column, values)


def _newly_null(before: pa.Array, after: pa.Array) -> Mask | None:
    bad = pc.and_(after.is_null(), before.is_valid()).to_numpy(zero_copy_only=False)
    return bad if bad.any() else None
