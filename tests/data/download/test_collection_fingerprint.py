from __future__ import annotations

from pathlib import Path

from fakeface.config.params import load_params
from fakeface.data.download.collection_fingerprint import fingerprint_collections
from tests.support.project import PROJECT

DATA = load_params(PROJECT / "params.yaml").data
FULL = DATA.model_copy(update={"profile": "full"})


def test_fingerprint_changes_with_the_files_of_a_collection(tmp_path: Path) -> None:
    (tmp_path / "lag").mkdir()
    (tmp_path / "lag" / "1.png").write_bytes(b"one")
    first = fingerprint_collections(FULL, tmp_path)
    assert first["lag"]["files"] == 1
    assert first["celeba"]["files"] == 0  # not fetched yet
    assert fingerprint_collections(FULL, tmp_path) == first
    (tmp_path / "lag" / "1.png").write_bytes(b"other")
    changed = fingerprint_collections(FULL, tmp_path)
    (tmp_path / "lag" / "2.png").write_bytes(b"two")
    added = fingerprint_collections(FULL, tmp_path)
    assert first["lag"] != changed["lag"] != added["lag"]
    assert {name for name in first if first[name] != added[name]} == {"lag"}


def test_fingerprint_of_a_profile_without_collections_is_empty(tmp_path: Path) -> None:
    assert fingerprint_collections(DATA, tmp_path) == {}
    assert fingerprint_collections(DATA.model_copy(update={"profile": "sample"}), tmp_path) == {}
