"""The address of a tracking store, for people."""

from __future__ import annotations

import re
from pathlib import Path

from fakeface.tracking import local_store

LOCAL = "local"
LOCAL_PAGE = "http://127.0.0.1:5000"  # where `make ui` serves it


def hide_password(uri: str) -> str:
    """`http://name:secret@host` → `http://name:…@host`."""
    return re.sub(r"(://[^/:@]+):[^/]*@", r"\1:…@", uri)


def name_store(uri: str, main: Path) -> str:
    """What a repository's notes call a store: "local", which a moved folder keeps, or its address without a login."""
    if uri == local_store.build_uri(main):
        return LOCAL
    return re.sub(r"://[^/]*@", "://", uri).rstrip("/")


def build_page_address(store: str) -> str:
    """Where a browser finds a store: a server at its own address, without a login, and any other by `make ui`."""
    if not store.startswith(("http://", "https://")):
        return LOCAL_PAGE
    return re.sub(r"://[^/@]*@", "://", store).rstrip("/")
