"""Experiments that come with the core: TOML pages for ``octr replay``."""
