"""A Keras file as a model of MLflow: with a signature, with pinned requirements, loadable without fakeface."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from fakeface.tracking.mlflow_store import quiet_mlflow

_REQUIREMENTS = ("mlflow", "tensorflow", "numpy")


def log_keras_model(path: Path, *, run_id: str, name: str, step: int, input_dtype: str, tags: Mapping[str, str]) -> str:
    """Log a Keras HDF5 model to a run of the current store; returns its address, `models:/…`."""
    mlflow = quiet_mlflow()
    import numpy as np
    import tensorflow as tf
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with _only_errors():
        model = tf.keras.models.load_model(path, compile=False)
        dtype = np.dtype(input_dtype or model.inputs[0].dtype.as_numpy_dtype)
        images = TensorSpec(dtype, (-1, *model.input_shape[1:]))
        probabilities = TensorSpec(np.dtype("float32"), (-1, *model.output_shape[1:]))
        logged = mlflow.tensorflow.log_model(
            model,
            name=name,
            run_id=run_id,
            step=step,
            tags=dict(tags),
            signature=ModelSignature(Schema([images]), Schema([probabilities])),
            pip_requirements=[f"{package}=={_version(package)}" for package in _REQUIREMENTS],
        )
    return str(logged.model_uri)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return metadata.version(f"{package}-cpu")  # tensorflow's other name


@contextmanager
def _only_errors() -> Iterator[None]:
    """Keep TensorFlow from warning of a model without optimizer: it is made so."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
