"""Public checks that every research module must pass, ours or a third party's.

In a test suite::

    @pytest.mark.parametrize("check", module_checks(MyModule()), ids=str)
    def test_my_module(check):
        check()

``octr check package.module:Class`` runs the same checks. Those that train share two small
learners on a tiny simulated stream, so all of them together take well under a minute.
"""

from ctr.testing.checks import CHECKS, STEPS, Check, module_checks
from ctr.testing.stream import tiny_recipe

__all__ = ["CHECKS", "STEPS", "Check", "module_checks", "tiny_recipe"]
