"""Files, locks, checksums, archives, processes and signals: nothing here knows of images or models."""
