"""Experiments: arms x seeds over one stream, paired and delay-aware, with honest intervals."""
