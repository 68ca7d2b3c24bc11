"""Labels, stages and parts, by the names that params.yaml, dvc.yaml and the files of a run use."""

from __future__ import annotations

REAL, FAKE = 0, 1
LABELS = {"real": REAL, "fake": FAKE}
STAGES = ("stage1", "stage2", "stage3")
FINAL_STAGE = STAGES[-1]
PARTS = ("train", "valid", "test")
HELDOUT = "heldout"
HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr")

# Names in reports/robustness.csv: of two perturbations, and of the mean over all sets
UNCHANGED, SHARED_DEGRADATION, MACRO = "none", "equalised", "macro"
