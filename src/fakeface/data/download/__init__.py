"""Stage download: sources fetched, checked and copied to datasets/raw."""
