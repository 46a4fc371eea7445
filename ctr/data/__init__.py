"""Ingested data on disk: the manifest of committed shards and how they are read in order."""
