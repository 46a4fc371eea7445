"""The verbs of the ``octr`` command that need nothing but the core."""
