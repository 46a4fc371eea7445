"""The ``octr`` command.

A verb is a module with ``HELP: str``, ``add_arguments(parser)`` and ``run(args) -> int``. It must
be cheap to import (no TensorFlow, no Beam at the top), because ``octr --help`` imports them all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from types import ModuleType

from ctr import __version__
from ctr.errors import ConfigError, CtrError
from ctr.origin import check_origins
from ctr.verbs import explain_import, load_verbs, missing_extra


def split_runner_options(argv: list[str]) -> tuple[list[str], list[str]]:
    """Splits ``argv`` at the first ``--``; what follows belongs to the Beam runner, untouched."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def build_parser(
    modules: Mapping[str, ModuleType], unavailable: Mapping[str, str]
) -> argparse.ArgumentParser:
    """Returns the parser: one sub-command per working verb; the others stand in the epilog."""
    lines = [f"  {name:<12}{reason}" for name, reason in unavailable.items()]
    parser = argparse.ArgumentParser(
        prog="octr",
        description="Learn ad click-through rates online: ingest, train, report, export.",
        epilog="\n".join(["unavailable:", *lines]) if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"online-ctr {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in modules.items():
        child = verbs.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(child)
        child.set_defaults(run=module.run)
        child.set_defaults(takes_runner_options=getattr(module, "TAKES_RUNNER_OPTIONS", False))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        0 done, 1 ran and a check failed, 2 usage, configuration or data error.
    """
    own, runner_options = split_runner_options(list(sys.argv[1:] if argv is None else argv))
    try:
        check_origins()
        return _run(own, runner_options)
    except CtrError as error:
        print(f"octr: {type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        print(f"octr: {own[0]} cannot run: {explain_import(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"octr: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("octr: interrupted; run the same command again to resume.", file=sys.stderr)
        return 130


def _run(own: list[str], runner_options: list[str]) -> int:
    modules, unavailable = load_verbs()
    if own and own[0] in unavailable:
        raise ConfigError(f"octr {own[0]} is unavailable: {unavailable[own[0]]}.")
    args = build_parser(modules, unavailable).parse_args(own)
    args.runner_options = runner_options
    if runner_options and not args.takes_runner_options:
        raise CtrError(f"octr {args.verb} takes no options after --, received {runner_options}.")
    return args.run(args)
