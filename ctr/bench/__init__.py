"""Benchmarks, one module each, run by ``octr bench``; they measure CPU time, never wall time."""
