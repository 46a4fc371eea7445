"""Readers of raw files: each turns a piece of a file into blocks of columns."""
