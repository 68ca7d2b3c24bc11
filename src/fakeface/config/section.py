"""A section of params.yaml: strict types, no unknown key, frozen."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
