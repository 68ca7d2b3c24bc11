"""What happens to a face on its way through the internet, as pure functions, and what a detector then makes of it.

A perturbation takes images (N, size, size, 3) uint8 RGB and returns new ones of the same shape and dtype; those given
stay as they are. PERTURBATIONS holds the robustness table's by name; the change that EQUALISED makes is the shortcut
probe.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakeface.constants import MACRO, SHARED_DEGRADATION, UNCHANGED
from fakeface.metrics.classification import Floats, Ints, compute_binary_metrics

Images: TypeAlias = npt.NDArray[np.uint8]
Perturbation: TypeAlias = Callable[[Images, int], Images]  # images, seed
Scorer: TypeAlias = Callable[[Images], npt.ArrayLike]  # images (N, size, size, 3) to scores (N,)

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG
_BLUR_REACH = 4.0  # sigmas: what lies beyond is less than a hundredth of a grey level


def jpeg(images: Images, quality: int) -> Images:
    """Coded as JPEG of this quality (1 to 100, libjpeg's scale, 4:2:0 colour) and decoded again."""
    return _each(images, lambda image: _encode_jpeg(image, quality))


def _encode_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(buffer)


def blur(images: Images, sigma: float) -> Images:
    """Blurred by a Gaussian of `sigma` pixels, mirrored at the border; sigma 0 changes nothing."""
    if sigma == 0:
        return images.copy()
    import cv2

    width = 2 * int(np.ceil(_BLUR_REACH * sigma)) + 1
    blurred = [cv2.GaussianBlur(image, (width, width), sigma, borderType=cv2.BORDER_REFLECT_101) for image in images]
    return np.stack(blurred).astype(np.uint8, copy=False) if blurred else images.copy()


def rescale(images: Images, scale: float) -> Images:
    """Resized to `scale` times the side by an antialiased cubic filter, and back; scale 1 changes nothing."""
    size = images.shape[1]
    other = max(1, round(size * scale))
    return _each(images, lambda image: _resize(_resize(image, other), size))


def crop(images: Images, fraction: float) -> Images:
    """The middle `fraction` (over 0, at most 1) of each side, enlarged to the full size; 1 changes nothing."""
    size = images.shape[1]
    inner = max(1, round(size * fraction))
    start = (size - inner) // 2
    box = (start, start, start + inner, start + inner)
    return _each(images, lambda image: _resize(image.crop(box), size))


def _resize(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC)


def noise(images: Images, sigma: float, seed: int) -> Images:
    """With Gaussian noise of `sigma` grey levels added to each channel; another field for each image of a batch."""
    rng = np.random.default_rng(seed)
    noisy = np.empty_like(images)
    for index, image in enumerate(images):  # one by one: a batch of floats would be four times the images
        field = rng.standard_normal(image.shape, dtype=np.float32)
        noisy[index] = np.clip(np.rint(image + np.float32(sigma) * field), 0, 255)
    return noisy


def grey(images: Images) -> Images:
    """Luminance (ITU-R BT.601) in all three channels."""
    luminance = np.rint(images @ _LUMA).astype(np.uint8)
    return np.repeat(luminance[..., None], 3, axis=-1)


def degrade_alike(images: Images) -> Images:
    """Every picture through the same: the middle 80 %, brought to half the side and back, as JPEG quality 75.

    What crop, native size and coding left in detail and borders is levelled as far as that goes: a detector that told
    the sources apart by it loses it here, one that sees the generator keeps part. It does not align the faces.
    """
    return jpeg(rescale(crop(images, 0.8), 0.5), 75)


def _each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    changed = np.empty_like(images)
    for index, image in enumerate(images):
        changed[index] = np.asarray(change(Image.fromarray(image)))
    return changed


def _ignore_seed(function: Callable[..., Images], *strength: float) -> Perturbation:
    return lambda images, seed: function(images, *strength)


def _make_noise(sigma: float) -> Perturbation:
    return lambda images, seed: noise(images, sigma, seed)


PERTURBATIONS: Mapping[str, Perturbation] = (
    {UNCHANGED: _ignore_seed(np.copy)}
    | {f"jpeg {quality}": _ignore_seed(jpeg, quality) for quality in (95, 90, 75, 50, 30)}
    | {f"blur {sigma:g}": _ignore_seed(blur, sigma) for sigma in (0.5, 1, 2, 3)}
    | {f"scale {scale:g}": _ignore_seed(rescale, scale) for scale in (2, 0.75, 0.5, 0.25)}
    | {f"noise {sigma}": _make_noise(sigma) for sigma in (2, 5, 10)}
    | {f"crop {fraction:g}": _ignore_seed(crop, fraction) for fraction in (0.9, 0.75)}
    | {"grey": _ignore_seed(grey), SHARED_DEGRADATION: _ignore_seed(degrade_alike)}
)


def score_perturbed(
    score: Scorer, images: Images, perturbation: Perturbation, seed: int = 0, batch_size: int = 128
) -> Floats:
    """Scores (N,) of perturbed images (N, size, size, 3), perturbed and scored `batch_size` at a time.

    `images` may be memory-mapped. Another batch size draws other noise.
    """
    scores = [
        np.asarray(score(perturbation(np.asarray(images[start : start + batch_size]), seed + start)), np.float64)
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(scores) if scores else np.empty(0)


def list_robustness_cells(
    score: Scorer,
    images: Images,
    labels: npt.ArrayLike,
    sets: Mapping[str, npt.NDArray[np.bool_]],
    threshold: float,
    *,
    seed: int = 0,
    batch_size: int = 128,
    perturbations: Mapping[str, Perturbation] = PERTURBATIONS,
) -> list[dict[str, Any]]:
    """The robustness table, a row for each perturbation and set of faces, at the model's own threshold.

    `sets` names the rows (N,) bool that belong together, such as `pairs.pair_rows`; MACRO, the mean over the sets with
    both classes, comes first. Keys: perturbation, set, balanced_accuracy, roc_auc, n_real, n_fake, and change: of the
    balanced accuracy against the first perturbation. What one class cannot define is None.
    """
    labels = np.asarray(labels, np.int64)
    rows: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    for name, perturbation in perturbations.items():
        scores = score_perturbed(score, images, perturbation, seed, batch_size)
        of_sets = {each: compute_binary_metrics(labels[mask], scores[mask], threshold) for each, mask in sets.items()}
        for faces, metrics in ({MACRO: _average_sets(of_sets)} | of_sets).items():
            balanced = metrics.get("balanced_accuracy")
            if balanced is not None:
                first.setdefault(faces, balanced)
            row = {key: metrics.get(key) for key in ("balanced_accuracy", "roc_auc", "n_real", "n_fake")}
            change = None if balanced is None else balanced - first[faces]
            rows.append({"perturbation": name, "set": faces, **row, "change": change})
    return rows


def _average_sets(of_sets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    counts = {name: sum(row[name] for row in of_sets.values()) for name in ("n_real", "n_fake")}
    whole = [row for row in of_sets.values() if "balanced_accuracy" in row]
    if not whole:
        return counts
    return counts | {name: float(np.mean([row[name] for row in whole])) for name in ("balanced_accuracy", "roc_auc")}


def stratified_sample(sources: Sequence[str], labels: npt.ArrayLike, at_most: int, seed: int = 0) -> Ints:
    """Sorted indices of at most `at_most` rows of each class of each source, drawn without replacement.

    Every perturbation scores every face again; a few hundred a source tell a fall of 0.05 from noise.
    """
    labels, names = np.asarray(labels), np.asarray(sources, dtype=str)
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero((names == name) & (labels == label)))[:at_most]
        for name in np.unique(names)
        for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
