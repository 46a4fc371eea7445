"""Experiments of the research modules: one TOML page each, for ``octr replay``."""
