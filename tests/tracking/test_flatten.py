"""Nested parameters and metrics as names and values that MLflow takes."""

from __future__ import annotations

import json

from fakeface.tracking.flatten import LONGEST_NAME, LONGEST_VALUE, flatten_metrics, flatten_parameters


def test_flatten_parameters_shortens_long_values_and_tells_them_apart() -> None:
    one, other = ["a" * 5000 + "1"], ["a" * 5000 + "2"]
    flat = flatten_parameters(
        {"one": one, "other": other, "none": None, "yes": True, "deep": {"list": [1, {"p": 0.5}]}}
    )
    assert len(flat["one"]) == LONGEST_VALUE
    assert flat["one"] != flat["other"]
    assert (flat["none"], flat["yes"]) == ("null", "true")
    assert json.loads(flat["deep.list"]) == [1, {"p": 0.5}]


def test_flatten_metrics_gives_the_names_of_comparisons() -> None:
    metrics = {
        "generalization": {"accuracy": 0.8, "interval": [0.7, 0.9], "pairs": {"a vs. b": {"auc": 1}}},
        "sources": {"celeba": {"accuracy": 0.7}},
        "stages": {"stage1": {"accuracy": 0.9}},
        "seconds": 3,
        "machine": "a text",
    }
    assert flatten_metrics(metrics) == {
        "generalization_accuracy": 0.8,
        "generalization_pairs_a vs. b_auc": 1.0,
        "source_celeba_accuracy": 0.7,
        "stage1_accuracy": 0.9,
        "seconds": 3.0,
    }
    (name,) = flatten_metrics({"x" * 400: 1})
    assert len(name) == LONGEST_NAME
