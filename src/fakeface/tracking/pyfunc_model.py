"""The detector as MLflow serves it: images in, calibrated scores and predictions out.

MLflow keeps a copy of this very file beside the checkpoint, and runs it where fakeface is not installed: it imports
nothing of ours, and says in its own words what `models.with_flip_tta`, `predict_raw_scores`, `Calibration.apply` and
`predict.choose_prediction` say.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

_BATCH = 32  # images a step
_CLIP = 1e-7  # of a probability before its logit, as evaluation.PROBABILITY_CLIP


class Detector(PythonModel):  # type: ignore[misc, unused-ignore]
    """models/stage3.h5 with the calibration and threshold that lie in it."""

    _skip_type_hint_validation = True  # MLflow takes type hints of `predict` for a schema, and misses them

    def load_context(self, context: Any) -> None:
        """Rebuild the network, in the precision that it was trained in, so that its scores are the pipeline's."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import h5py
        import tensorflow as tf

        path = context.artifacts["checkpoint"]
        with h5py.File(path, "r") as file:
            facts = json.loads(file.attrs["fakeface"])
        self.calibration = facts["calibration"]
        network = tf.keras.models.load_model(path, compile=False)
        self.network = _with_flip_tta(network) if facts.get("flip_tta") else network

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Images (N, S, S, 3) RGB in 0..255 → rows of `score`, P(fake), and `prediction`: fake, real or unsure."""
        batches = [model_input[start : start + _BATCH] for start in range(0, len(model_input), _BATCH)]
        scores = self._calibrated(np.concatenate([self._raw(each) for each in batches]) if batches else np.empty(0))
        return pd.DataFrame({"score": scores, "prediction": self._predictions(scores)})

    def _raw(self, images: Any) -> Any:
        real, fake = np.asarray(self.network.predict_on_batch(np.asarray(images, np.float32)), np.float64).T
        return np.where(fake > real, 1 - real, fake)  # float32 has few numbers near 1, and many near 0

    def _calibrated(self, raw: Any) -> Any:
        clipped = np.clip(np.asarray(raw, np.float64), _CLIP, 1 - _CLIP)
        logits = np.log(clipped) - np.log1p(-clipped)
        return 1 / (1 + np.exp(-(self.calibration["slope"] * logits + self.calibration["bias"])))

    def _predictions(self, scores: Any) -> Any:
        low, high = self.calibration["abstention_low"], self.calibration["abstention_high"]
        answers = np.where(scores >= self.calibration["threshold"], "fake", "real")
        return np.where((low < high) & (scores >= low) & (scores <= high), "unsure", answers)


def _with_flip_tta(network: Any) -> Any:
    """The softmax of the mean logits of an image and its mirror image."""
    import tensorflow as tf

    images = tf.keras.Input(network.input_shape[1:], dtype="float32")
    to_logits = tf.keras.Model(network.input, network.get_layer("logits").output)
    views = [to_logits(images), to_logits(tf.reverse(images, axis=[2]))]
    logits = tf.keras.layers.Average(dtype="float32")(views)
    return tf.keras.Model(images, tf.keras.layers.Activation("softmax", dtype="float32")(logits))


set_model(Detector())
