"""Data sets: the formats that the stages share, and the stages download, split and audit."""
