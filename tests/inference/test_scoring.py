from __future__ import annotations

import numpy as np
import pytest

from fakeface.inference.scoring import predict_raw_scores
from fakeface.metrics.calibration import logit
from fakeface.models.device import quiet_tensorflow

quiet_tensorflow()


@pytest.mark.parametrize("wanted", [-15.9, -15.8, -0.1, 0.0, 0.1, 4.0, 15.8, 15.9])
def test_predict_raw_scores_is_as_exact_near_one_as_near_zero(wanted: float) -> None:
    import tensorflow as tf

    images = tf.keras.Input((1, 1, 3))
    logits = tf.keras.layers.Dense(2, name="logits")(tf.keras.layers.Flatten()(images))
    network = tf.keras.Model(images, tf.keras.layers.Softmax()(logits))
    network.get_layer("logits").set_weights([np.zeros((3, 2)), np.array([0.5, 0.5 + wanted])])
    scores = predict_raw_scores(network, np.zeros((2, 1, 1, 3), np.uint8))
    np.testing.assert_allclose(logit(scores), [wanted, wanted], atol=1e-4)
