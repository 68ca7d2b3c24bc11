"""The address of a tracking store, for people."""

from __future__ import annotations

import re

LOCAL_PAGE = "http://127.0.0.1:5000"  # where `make ui` serves it


def without_password(uri: str) -> str:
    """`http://name:secret@host` → `http://name:…@host`."""
    return re.sub(r"(://[^/:@]+):[^@/]*@", r"\1:…@", uri)


def page(store: str) -> str:
    """Where a browser finds a store: a server at its own address, without a login, and any other by `make ui`."""
    if not store.startswith(("http://", "https://")):
        return LOCAL_PAGE
    return re.sub(r"://[^/@]*@", "://", store).rstrip("/")
