"""The sources of the sample and the constants that set how hard it is.

`checker` and `leak` of the generators set the difficulty. Measured on stages 1-3 against the held-out sources:
- these values: the `residual` network with the default augmentation reached a held-out balanced accuracy of 0.79 after
  21 steps of batch 64 and 0.887 (ROC AUC 0.955) after 66; logistic regression on spectra reached 0.905 (0.972);
- twice these values: 0.93 after 21 steps, and the pattern can be seen.
Blur, noise and sharpening are set so that sharpness and file size are spread alike in both classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .camera import Camera
from .generator import Generator


@dataclass(frozen=True)
class Source:
    """One folder of the sample."""

    count: int
    model: Camera | Generator

    @property
    def label(self) -> str:
        """`real` for a camera, `fake` for a generator."""
        return "real" if isinstance(self.model, Camera) else "fake"


SOURCES = {
    "camera_1": Source(360, Camera((0.4, 0.9), 0.8, 0.7, (0, 0), "smooth_hue", (0.1, 0.5), 1.0, 0.6)),
    "camera_2": Source(360, Camera((0.4, 0.9), 0.9, 0.8, (0, 1), "malvar", (0.1, 0.4), 0.8, 0.8)),
    "camera_3": Source(360, Camera((0.4, 0.95), 0.9, 0.75, (1, 0), "edge_directed", (0.1, 0.5), 1.2, 0.5)),
    "camera_4": Source(200, Camera((0.3, 0.8), 1.6, 0.5, (1, 1), "bilinear", (0.7, 1.6), 0.8, 1.1)),
    "generator_1": Source(640, Generator(11, 2, 3, 0.017, 0.4, 0.02, 0.05, (0.35, 0.85), 0.75, 0.75)),
    "generator_2": Source(500, Generator(22, 3, 5, 0.019, 0.4, 0.02, 0.05, (0.35, 0.85), 0.75, 0.75)),
    "generator_3": Source(200, Generator(33, 2, 4, 0.018, 0.4, 0.02, 0.05, (0.35, 0.85), 0.75, 0.75)),
}
