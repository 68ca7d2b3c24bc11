"""What the make commands run beside the pipeline."""
