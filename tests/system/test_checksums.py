"""Files of a folder against its manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from fakeface.system.checksums import VerifyReport, verify_folder
from fakeface.system.errors import UserError


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def a_folder_with_its_manifest(folder: Path, count: int = 6) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        path = folder / f"set{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 100)
        name = path.relative_to(folder).as_posix()
        rows.append({"path": name, "sha256": digest(path.read_bytes()), "bytes": str(path.stat().st_size)})
    (folder / "manifest.csv").write_text("path,sha256\n", encoding="utf-8")
    return rows


def test_verify_folder_names_missing_changed_and_added_files(tmp_path: Path) -> None:
    rows = a_folder_with_its_manifest(tmp_path)
    clean = verify_folder(tmp_path, rows)
    assert clean == VerifyReport(6, (), (), ())
    assert clean.clean
    (tmp_path / "set0" / "0.jpg").unlink()
    (tmp_path / "set1" / "1.jpg").write_bytes(b"x" * 100)
    (tmp_path / "set0" / "2.jpg").write_bytes(b"shorter")
    (tmp_path / "set1" / "3.jpg").rename(tmp_path / "set1" / "moved.jpg")
    (tmp_path / "set1" / "3.jpg").symlink_to(tmp_path / "set1" / "moved.jpg")
    (tmp_path / "set0" / ".hidden").touch()
    (tmp_path / "set0" / "manifest.csv").touch()
    report = verify_folder(tmp_path, rows)
    assert report.missing == ("set0/0.jpg",)
    assert report.changed == ("set0/2.jpg", "set1/1.jpg", "set1/3.jpg")
    assert report.added == ("set0/manifest.csv", "set1/moved.jpg")
    assert not report.clean


def test_verify_folder_of_rows_without_a_size(tmp_path: Path) -> None:
    rows = a_folder_with_its_manifest(tmp_path, 3)
    for row in rows:
        del row["bytes"]
    told: list[int] = []
    many = rows * 1000
    assert verify_folder(tmp_path, many, advance=told.append).clean
    assert told == [2048, 952]


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "a/../../b.jpg", ""])
def test_verify_folder_refuses_a_path_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not inside it"):
        verify_folder(tmp_path, [{"path": name, "sha256": "0" * 64}])
