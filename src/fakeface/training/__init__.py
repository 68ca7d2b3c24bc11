"""Stages train_stage1 to train_stage3: one stage from the checkpoint before it to its own."""
