"""Stage audit: what to read before believing the split."""
