"""Nested parameters and metrics as the flat names and short values that MLflow takes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_VALUE = 500  # characters; MLflow 3 takes 6000, servers made before 2.10 take 500
_ONLY_IN_FILE = {"interval", "quantiles", "source_pairs", "robustness"}
LONGEST_NAME = 250  # characters, in every MLflow


def flatten_parameters(nested: Mapping[str, Any]) -> dict[str, str]:
    """`{"stages": {"stage3": {"lr": 0.1}}}` → `{"stages.stage3.lr": "0.1"}`, values written as in params.yaml."""
    return {clean_name(name): shorten_value(value) for name, value in _iterate_leaves(nested, ".")}


def flatten_metrics(nested: Mapping[str, Any]) -> dict[str, float]:
    """Every number under a name of its own: `sources.celeba.accuracy` → `source_celeba_accuracy`.

    `generalization.accuracy` → `generalization_accuracy`, `stages.stage1.accuracy` → `stage1_accuracy`. What is no
    number (lists, texts, None) is left to the file that carries the whole, as are intervals, quantiles, the pairs of
    all sources and the robustness table: they would bury the rest in the page's list of metrics.
    """
    flat = {}
    for section, value in nested.items():
        if section in _ONLY_IN_FILE:
            continue
        prefix = {"sources": "source_", "stages": ""}.get(section, f"{section}_")
        leaves = _iterate_leaves(_drop_file_only(value), "_") if isinstance(value, Mapping) else iter([("", value)])
        for name, leaf in leaves:
            if isinstance(leaf, (int, float)):
                flat[clean_name(f"{prefix}{name}" if name else section)] = float(leaf)
    return flat


def _drop_file_only(nested: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_file_only(value) if isinstance(value, Mapping) else value
        for key, value in nested.items()
        if key not in _ONLY_IN_FILE
    }


def clean_name(name: str) -> str:
    """The name with every character that MLflow refuses replaced by `_`, told apart by a hash where it is too long."""
    name = re.sub(r"[^\w.\-: /]", "_", name).strip("/") or "_"
    name = re.sub(r"/{2,}", "/", name)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{_hash_text(name)}"


def shorten_value(value: object) -> str:
    """A value as text; a long one is cut and keeps its length and hash, so that two that differ still differ."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)
    if len(text) <= LONGEST_VALUE:
        return text
    tail = f"… ({len(text)} characters, sha256 {_hash_text(text)})"
    return text[: LONGEST_VALUE - len(tail)] + tail


def is_same_value(one: float, other: float) -> bool:
    """Whether two values of a metric are one: a store may round the last digit, and nan is nan."""
    return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def format_numbers(numbers: Mapping[str, float]) -> str:
    """`loss 0.31, accuracy 0.9` out of the metrics of an epoch."""
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if math.isfinite(value))


def _iterate_leaves(nested: Mapping[str, Any], joint: str) -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            for name, leaf in _iterate_leaves(value, joint):
                yield f"{key}{joint}{name}", leaf
        else:
            yield str(key), value


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
