"""Stage evaluate: every checkpoint on the held-out sources."""
