"""Bytes of image files to checked pixels."""
