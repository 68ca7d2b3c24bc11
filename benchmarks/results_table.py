"""Rows of measurements, their table, and its place in RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fakeface.system.errors import UserError

BEGIN = "<!-- `make bench` writes from here -->"
END = "<!-- to here -->"
HEADINGS = ("", "target", "measured", "ratio", "", "how")


@dataclass(frozen=True)
class Row:
    """One claim: `measured` against `target`, both in `unit`; None where the measurement failed."""

    what: str
    target: float
    measured: float | None
    unit: str  # ×, %, s or MB
    at_most: bool = False  # the target is an upper limit
    how: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured / target: at least 1 is met, or at most 1 where the target is an upper limit."""
        return None if self.measured is None else self.measured / self.target

    @property
    def met(self) -> bool:
        """Whether the target is reached; a failed measurement reaches none."""
        return self.ratio is not None and (self.ratio <= 1 if self.at_most else self.ratio >= 1)

    def cells(self) -> tuple[str, ...]:
        """Return what stands under HEADINGS."""
        limit = f"{'at most' if self.at_most else 'at least'} {_number(self.target)} {self.unit}"
        if self.measured is None or self.ratio is None:
            return self.what, limit, "failed", "", "not met", self.how
        measured = f"{_number(self.measured)} {self.unit}"
        return self.what, limit, measured, f"{self.ratio:.2f}", "met" if self.met else "not met", self.how


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def put_into(file: Path, section: str) -> None:
    """Put `section` between the two marks of a text file; all else in it stays.

    Raises:
        UserError: the marks are not there once each, in their order.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise UserError(f"{file} needs the lines '{BEGIN}' and '{END}' once each; put them where the table belongs.")
    file.write_text(f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}", encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
