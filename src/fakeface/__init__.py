"""Train, track and prove a detector of computer-made faces."""

REAL, FAKE = 0, 1
LABELS = {"real": REAL, "fake": FAKE}
STAGES = ("stage1", "stage2", "stage3")
PARTS = ("train", "valid", "test")
HELDOUT = "heldout"
