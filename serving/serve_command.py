"""``octr serve``: answer requests with the blessed versions of a folder."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from ctr.errors import ConfigError
from ctr.option_types import non_negative_float, non_negative_int, positive_int

HELP = "serve a folder of blessed versions over TensorFlow Serving's REST and gRPC interfaces"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    add = parser.add_argument
    add("models_dir", type=Path, metavar="MODELS", help="folder of versions, from octr export")
    add("--name", default="", help="the model's name in requests (default: the folder's name)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--rest-port", type=non_negative_int, default=8501, metavar="N",
        help="0 takes a free one (default: 8501)")  # fmt: skip
    add("--grpc-port", type=non_negative_int, default=8500, metavar="N",
        help="0 takes a free one (default: 8500)")  # fmt: skip
    add("--threads", type=positive_int, default=0, metavar="N",
        help="batches computed at the same time (default: number of cores)")  # fmt: skip
    add("--max-batch-rows", type=positive_int, default=1024, metavar="N",
        help="rows of requests merged into one call (default: 1024)")  # fmt: skip
    add("--max-request-mb", type=positive_int, default=4, metavar="N",
        help="largest body in MiB (default: 4)")  # fmt: skip
    add("--max-connections", type=positive_int, default=1024, metavar="N",
        help="HTTP connections at the same time (default: 1024)")  # fmt: skip
    add("--poll-s", type=non_negative_float, default=1.0, metavar="S",
        help="seconds between looks at the folder (default: 1)")  # fmt: skip
    add("--drain-s", type=non_negative_float, default=30.0, metavar="S",
        help="longest wait for running requests (default: 30)")  # fmt: skip
    add("--token-file", type=Path, metavar="FILE", help="requests must carry its bearer token")
    add("--tls-cert", type=Path, metavar="PEM", help="serve HTTPS and secure gRPC")
    add("--tls-key", type=Path, metavar="PEM", help="the certificate's key")
    add("--no-warm-up", action="store_true",
        help="skip the warm-up requests, to see what they are good for")  # fmt: skip
    add("--allow-anonymous", action="store_true",
        help="listen beyond this machine without a token")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        0 after a graceful end.

    Raises:
        ConfigError: the options do not go together, or a port is taken.
    """
    from ctr.quiet import start_quietly

    start_quietly()
    from serving.server.options import ServerOptions
    from serving.server.run import serve_until_signal

    folder: Path = args.models_dir
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Name one that octr export wrote to.")
    options = ServerOptions(
        folder, args.name or folder.resolve().name, args.host, args.rest_port, args.grpc_port,
        threads=args.threads or os.cpu_count() or 1, max_batch_rows=args.max_batch_rows,
        max_request_bytes=args.max_request_mb << 20, max_connections=args.max_connections,
        poll_s=args.poll_s, drain_s=args.drain_s, token=_token(args.token_file),
        tls_cert=args.tls_cert, tls_key=args.tls_key, warm_up=not args.no_warm_up,
    )  # fmt: skip
    if not (options.on_loopback or options.token or args.allow_anonymous):
        raise ConfigError(
            f"--host {options.host} is reachable from elsewhere: name a --token-file, or say "
            "--allow-anonymous."
        )
    asyncio.run(serve_until_signal(options))
    return 0


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file} cannot be read: {error}.") from None
    if len(token) < 16:
        raise ConfigError(f"--token-file {file}: a token needs at least 16 characters.")
    return token
