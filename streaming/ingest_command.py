"""The verb ``octr ingest``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctr.errors import ConfigError

HELP = "Turn a raw log (CSV, TSV, JSON lines, Parquet) into time-ordered shards."
TAKES_RUNNER_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    from streaming.presets import preset_names

    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--preset", metavar="NAME", help=f"a known data set: {', '.join(preset_names())}"
    )
    what.add_argument("--schema", metavar="FILE", help="your schema.toml (see docs/data.md)")
    parser.add_argument(
        "--input",
        metavar="PATH",
        action="append",
        nargs="+",
        required=True,
        help="file, folder or pattern of the raw log; may be repeated",
    )
    parser.add_argument("--output", metavar="DATA", required=True, type=Path, help="data folder")
    parser.add_argument(
        "--max-bad-fraction",
        metavar="X",
        type=float,
        default=0.01,
        help="share of rows that may be bad before the job fails (default 0.01)",
    )
    parser.add_argument(
        "--shard-rows",
        metavar="N",
        type=int,
        default=131_072,
        help="rows per shard (default 131072)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the ingest the output folder holds"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the ingest and prints its summary.

    Raises:
        ConfigError: an option has an impossible value.
    """
    if not 0.0 <= args.max_bad_fraction <= 1.0:
        raise ConfigError(f"--max-bad-fraction: expected 0 to 1, received {args.max_bad_fraction}.")
    if args.shard_rows < 1:
        raise ConfigError(f"--shard-rows: expected 1 or more, received {args.shard_rows}.")
    with quiet_imports():
        from streaming.ingest import IngestOptions, ingest
    from streaming.presets import load_preset
    from streaming.source import load_source

    schema, source = load_preset(args.preset) if args.preset else load_source(Path(args.schema))
    inputs = [path for group in args.input for path in group]
    options = IngestOptions(
        max_bad_fraction=args.max_bad_fraction,
        shard_rows=args.shard_rows,
        overwrite=args.overwrite,
        runner_options=tuple(args.runner_options),
    )
    for line in ingest(schema, source, inputs, args.output, options).lines():
        print(line)
    return 0


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps Beam's import from warning about optional cloud clients that nobody asked for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
