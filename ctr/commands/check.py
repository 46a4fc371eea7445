"""``octr check``: run the public checks on anybody's research module."""

from __future__ import annotations

import argparse
import os
import sys

from ctr.option_types import names

HELP = "run the public checks on a research module"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "module", metavar="PKG.MOD:CLASS", help="the module's class, or an installed module's name"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="settings",
        help="a hyper-parameter; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--base-set", action="append", default=[], metavar="A.B=VALUE", dest="base",
        help="change the tiny recipe it is applied to; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--labels", type=names, default=(), metavar="A,B",
        help="labels of the simulator (default: click)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the checks and prints one line for each.

    Returns:
        0, or 1 if a check failed.
    """
    from ctr.quiet import start_quietly

    # The console script does not look for modules where it is called.
    sys.path.append(os.getcwd())
    start_quietly()
    from ctr.config import override
    from ctr.errors import CtrError
    from ctr.harness.arms import module_from_settings
    from ctr.testing import module_checks, tiny_recipe

    module = module_from_settings(args.module, args.settings)
    base = override(tiny_recipe(), args.base)
    failed = 0
    for check in module_checks(module, base, args.labels):
        try:
            check()
        except CtrError as error:
            failed += 1
            print(f"FAIL  {check}: {error}", flush=True)
        except Exception as error:  # the module's own code may fail in any way
            failed += 1
            print(f"FAIL  {check}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok    {check}", flush=True)
    return 1 if failed else 0
