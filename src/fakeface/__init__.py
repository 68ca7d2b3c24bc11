"""Train, track and prove a detector of computer-made faces."""
