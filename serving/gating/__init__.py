"""The gate: what a new version must show before a server may pick it up."""
