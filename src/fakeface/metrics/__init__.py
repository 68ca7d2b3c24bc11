"""Scores and labels to numbers."""
