"""Stage split: images decoded once and shared out without a leak."""
