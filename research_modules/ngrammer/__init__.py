"""N-Grammer: pairs of learned token codes as features of token sequences."""
