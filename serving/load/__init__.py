"""Load on a server of its own process, for ``octr bench serving``."""
