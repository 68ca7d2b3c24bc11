"""How well counts of the finest texture tell a real source from a fake one: alone, and added to a trained network.

Reads datasets/split and models/stage3.h5 of this folder; no held-out image is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import numpy.typing as npt

from fakeface import STAGES
from fakeface.calibration import Calibration
from fakeface.errors import UserError, one_sentence_errors

if TYPE_CHECKING:
    import tensorflow as tf

FOLDS = 4
_SAVED_AGAIN = ((200, 75), (250, 85), (300, 75), (300, 90))  # pixels, JPEG quality
_STRENGTH = 0.02  # C of the logistic regression: 3,051 counts, a few thousand images


@click.command(help=__doc__)
@click.option("--real", default="ffhq", show_default=True, help="A source of real faces.")
@click.option("--fake", default="stylegan", show_default=True, help="A source of fakes.")
@click.option("--split", type=click.Path(path_type=Path), default=Path("datasets/split"), show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("models/stage3.h5"), show_default=True)
def main(real: str, fake: str, split: Path, checkpoint: Path) -> None:
    """Print the ROC AUCs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fakeface.calibration import logit
    from fakeface.checkpoints import load_checkpoint, read_facts
    from fakeface.device import prepare_tensorflow
    from fakeface.inputs import pool_of
    from fakeface.models import shapes_alone, with_mirrored_view
    from fakeface.scoring import score_pool
    from fakeface.store import open_store

    read_facts(checkpoint)
    prepare_tensorflow("cpu", "float32", 0, True)
    stores = [open_store(split / stage) for stage in STAGES]
    pools = {part: pool_of(stores, part) for part in ("train", "valid")}
    pools = {part: pool.where(np.isin(pool.sources, (real, fake))) for part, pool in pools.items()}
    for part, pool in pools.items():
        if len(np.unique(pool.labels)) < 2:
            raise UserError(f"{split} has no {part} images of both {real} and {fake}; name sources of its stages.")
    counts = {part: _counts(pool.take(np.arange(len(pool)))) for part, pool in pools.items()}
    labels = {part: pool.labels for part, pool in pools.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=500))
    every, all_labels = (np.concatenate(list(parts.values())) for parts in (counts, labels))
    folds = cross_val_predict(model, every, all_labels, cv=FOLDS, method="decision_function")
    print(f"counts, {FOLDS} folds of {len(all_labels):,} images: AUC {roc_auc_score(all_labels, folds):.3f}")
    alone = model.fit(counts["train"], labels["train"]).decision_function(counts["valid"])
    whole, facts = load_checkpoint(checkpoint)
    detector, shapes = with_mirrored_view(whole), with_mirrored_view(shapes_alone(whole))
    of_both, of_shapes = (
        logit(score_pool(network, pools["valid"], 32, f"with {checkpoint.name}")) for network in (detector, shapes)
    )
    print(f"on {len(alone):,} validation images, learned from {len(labels['train']):,} training images:")
    for name, scores in {
        "counts, by logistic regression": alone,
        f"{checkpoint.name} without its layer on the texture": of_shapes,
        "sum of both, equally wide": alone / alone.std() + of_shapes / of_shapes.std(),
        f"{checkpoint.name} as it is": of_both,
    }.items():
        print(f"  {name}: AUC {roc_auc_score(labels['valid'], scores):.3f}")
    print(f"  correlation of the first two: {np.corrcoef(alone, of_shapes)[0, 1]:.2f}")
    _tell_saved_again(detector, facts.calibration, pools["valid"].take(np.flatnonzero(labels["valid"])))


def _tell_saved_again(detector: tf.keras.Model, calibration: Calibration, fakes: npt.NDArray[np.uint8]) -> None:
    """Print how many of the fakes are called fake as they are, and when nothing but their file has changed."""
    from fakeface.augment_arrays import RESAMPLING_KERNELS, resave
    from fakeface.scoring import raw_scores

    kernel = list(RESAMPLING_KERNELS).index("lanczos")
    changed = {"as they are": fakes} | {
        f"saved at {side} pixels and JPEG quality {quality}": resave(
            fakes, np.tile([side / fakes.shape[1], quality, kernel], (len(fakes), 1))
        )
        for side, quality in _SAVED_AGAIN
    }
    print(f"of {len(fakes):,} validation fakes called fake at the stored threshold:")
    for name, images in changed.items():
        batches = np.array_split(images, max(1, len(images) // 32))
        scores = np.concatenate([raw_scores(detector, batch) for batch in batches])
        print(f"  {name}: {np.mean(calibration.apply(scores) >= calibration.threshold):.3f}")


def _counts(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import tensorflow as tf

    from fakeface.texture import texture_counts

    inputs = tf.keras.Input(images.shape[1:])
    network = tf.keras.Model(inputs, texture_counts(inputs))
    starts = range(0, len(images), 64)
    return np.concatenate([network.predict_on_batch(images[start : start + 64].astype(np.float32)) for start in starts])


if __name__ == "__main__":
    with one_sentence_errors():
        main()
