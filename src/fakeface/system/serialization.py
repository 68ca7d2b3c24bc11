"""CSV and JSON files that are written whole or not at all, and read with one sentence for what is wrong in them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fakeface.system.errors import UserError
from fakeface.system.filesystem import atomic_write

_SUM = "sha256_of_the_above"


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header line; lines end with a newline alone."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON that ends with a newline."""
    with atomic_write(path) as file:
        file.write(_serialize(content))


def write_json_with_checksum(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object as `write_json` does, with the sha256 of that text under one more key, its last."""
    write_json(path, {**content, _SUM: _checksum_json(content)})


def _serialize(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _checksum_json(content: Any) -> str:
    return hashlib.sha256(_serialize(content).encode()).hexdigest()


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Give the rows of a CSV file, each with at least the columns `needed`.

    Raises:
        UserError: the file is missing, no UTF-8, or a column or value is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            lacking = [column for column in needed if column not in columns]
            if lacking:
                raise UserError(f"{path} has no column '{lacking[0]}'; it needs {', '.join(needed)}.")
            for values in reader:
                if not values:  # an empty line
                    continue
                if len(values) != len(columns):
                    raise UserError(f"{path}, line {reader.line_num}: wrong number of values; write it again.")
                yield dict(zip(columns, values, strict=True))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage that makes it again.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}); write it again.") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage that makes it again.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); run the stage that makes it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; run the stage that makes it again.")
    return content


def read_json_with_checksum(path: Path) -> dict[str, Any]:
    """Read what `write_json_with_checksum` wrote, without the sum.

    Raises:
        UserError: as read_json, and for content that is not what was written.
    """
    content = read_json(path)
    if content.pop(_SUM, None) != _checksum_json(content):
        raise UserError(
            f"{path} is damaged, or written by another version of fakeface: it does not fit its own sum; run the stage "
            "that makes it again."
        )
    return content


def summarize_names(names: Sequence[str], shown: int = 5) -> str:
    """Join the first few names for a sentence and count the others."""
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown:,} more"
