"""The verb ``octr stream``."""

from __future__ import annotations

import argparse
import json
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ctr.errors import ConfigError
from ctr.option_types import non_negative_float, positive_int

if TYPE_CHECKING:
    from streaming.live.source import EventSource
    from streaming.stage import Reading

HELP = "join live impressions and events into shards that octr train --follow learns"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument(
        "--source",
        required=True,
        metavar="URL",
        help="dir://FOLDER, or kafka://HOST:PORT,...?impressions=TOPIC&LABEL=TOPIC",
    )
    parser.add_argument("--schema", required=True, type=Path, metavar="FILE", help="schema.toml")
    parser.add_argument("--output", required=True, type=Path, metavar="DATA", help="data folder")
    seconds = (
        ("--wait-s", None, "an example waits so long for its labels (default: the longest window)"),
        ("--lateness-s", 600.0, "older than this behind the clock is too late (default: 600)"),
        ("--window-s", 60.0, "event time of one shard (default: 60)"),
        ("--disorder-s", 60.0, "how far event time falls back in a channel (default: 60)"),
        ("--channel-idle-s", 30.0, "a silent channel stops holding the clock back (default: 30)"),
        ("--until-idle-s", 0.0, "close the stream after so long without rows (default: never)"),
        ("--ahead-s", 3600.0, "later than this after now is no event time (default: 3600)"),
    )
    for name, default, what in seconds:
        parser.add_argument(name, type=non_negative_float, default=default, metavar="S", help=what)
    parser.add_argument("--drain-bytes", type=positive_int, default=8 << 20, metavar="N",
                        help="size of one drain (default: 8388608)")  # fmt: skip
    parser.add_argument("--shard-rows", type=positive_int, default=131_072, metavar="N",
                        help="largest shard (default: 131072)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Joins until the stream ends, SIGTERM or SIGINT, then prints what happened as JSON."""
    logging.basicConfig(level=logging.INFO, format="octr stream: %(message)s")
    from streaming.ingest_command import quiet_imports

    with quiet_imports():
        from streaming.live.driver import Driver, DriverOptions
        from streaming.live.rules import join_rules
        from streaming.source import load_source
        from streaming.stage import Reading

    schema, source = load_source(args.schema)
    if source.lookups:
        raise ConfigError(
            f"{args.schema}: octr stream joins no side tables ([[source.lookups]]). Put their "
            "columns into the impressions."
        )
    rules = join_rules(schema, source, args.wait_s, args.lateness_s, args.window_s)
    reading = Reading(schema, source, (), args.drain_bytes)
    options = DriverOptions(
        args.disorder_s, args.channel_idle_s, args.until_idle_s, args.ahead_s, args.drain_bytes,
        shard_rows=args.shard_rows,
    )  # fmt: skip
    driver = Driver(reading, open_source(args.source, reading), args.output, rules, options)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    driver.run(lambda: bool(asked))
    progress = driver.progress
    print(
        json.dumps(
            {"output": str(args.output), "shards": len(progress.shards),
             "closed": progress.closed, **dict(sorted(progress.counts.items()))}
        )
    )  # fmt: skip
    return 0


def open_source(url: str, reading: Reading) -> EventSource:
    """Opens what ``--source`` names.

    Raises:
        ConfigError: the address cannot be understood or used.
    """
    scheme = urlsplit(url).scheme
    if scheme == "dir":
        from streaming.live.dir_source import DirSource

        return DirSource(Path(url.removeprefix("dir://")), reading)
    if scheme == "kafka":
        from streaming.live.kafka_source import KafkaSource

        return KafkaSource.from_url(url, reading)
    raise ConfigError(f"--source {url}: expected dir://FOLDER or kafka://HOST:PORT?...")
