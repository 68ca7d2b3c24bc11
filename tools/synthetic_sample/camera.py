"""The camera model that forms real pictures: optics, Bayer mosaic, sensor noise, demosaic, sharpening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise_fields import Picture, Plane, blur, shift


@dataclass(frozen=True)
class Camera:
    """Constants of one make of camera; ranges are drawn for each picture.

    `blur` is the optics' sigma in sensor pixels, `noise` scales the noise of the picture, `red` places the red pixel in
    the 2x2 mosaic, `sharpen` is the share of detail (above `sharpen_sigma` pixels) that is added.
    """

    blur: tuple[float, float]
    noise: float
    shot_share: float
    red: tuple[int, int]
    demosaic: str
    sharpen: tuple[float, float]
    sharpen_sigma: float
    chroma_blur: float


def photograph(rng: np.random.Generator, camera: Camera, view: Picture, noise: float) -> Picture:
    """Linear picture of a linear view of equal size; `noise` is its standard deviation at mid-grey."""
    masks = bayer_masks(view.shape[0], camera.red)
    raw = (view * masks).sum(axis=2)
    raw = raw + sensor_noise(rng, raw, noise * camera.noise, camera.shot_share)
    picture = _smoothed_chroma(DEMOSAICS[camera.demosaic](raw, masks), camera.chroma_blur)
    detail = picture - blur(picture, camera.sharpen_sigma)
    return picture + rng.uniform(*camera.sharpen) * detail


def sensor_noise(rng: np.random.Generator, light: Picture | Plane, level: float, shot_share: float) -> Picture | Plane:
    """Gaussian noise whose variance has a part that grows with the light; `level` is its deviation at light 0.2."""
    variance = level**2 * (1.0 - shot_share + shot_share * np.clip(light, 0.0, None) / 0.2)
    result: Picture | Plane = rng.standard_normal(light.shape) * np.sqrt(variance)
    return result


def bayer_masks(size: int, red: tuple[int, int]) -> Picture:
    """Ones where the mosaic sees red, green, blue: (size, size, 3)."""
    masks = np.zeros((size, size, 3))
    masks[red[0] :: 2, red[1] :: 2, 0] = 1.0
    masks[1 - red[0] :: 2, 1 - red[1] :: 2, 2] = 1.0
    masks[..., 1] = 1.0 - masks[..., 0] - masks[..., 2]
    return masks


def _bilinear(raw: Plane, masks: Picture) -> Picture:
    """Each missing value is the mean of its nearest neighbours of that colour."""
    return np.stack([_filled(raw * masks[..., c], masks[..., c]) for c in range(3)], axis=-1)


def _filled(values: Plane, mask: Plane) -> Plane:
    weights = ((1, 0.5), (0.5, 0.25))
    total, share = np.zeros_like(values), np.zeros_like(values)
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            weight = weights[abs(rows)][abs(columns)]
            total += weight * shift(values, rows, columns)
            share += weight * shift(mask, rows, columns)
    return np.where(mask > 0, values, total / share)


def _malvar(raw: Plane, masks: Picture) -> Picture:
    """Bilinear plus the Laplacian of the known colour (Malvar, He, Cutler 2004, gains 1/2, 5/8, 3/4)."""
    plain = _bilinear(raw, masks)
    cross = raw - (shift(raw, -2, 0) + shift(raw, 2, 0) + shift(raw, 0, -2) + shift(raw, 0, 2)) / 4.0
    green = masks[..., 1]
    own = {0: masks[..., 0], 2: masks[..., 2]}
    picture = plain.copy()
    picture[..., 1] += 0.5 * cross * (1.0 - green)
    diagonal = shift(raw, -1, -1) + shift(raw, -1, 1) + shift(raw, 1, -1) + shift(raw, 1, 1)
    rows = shift(raw, -2, 0) + shift(raw, 2, 0)
    columns = shift(raw, 0, -2) + shift(raw, 0, 2)
    for c in (0, 2):
        beside = green * ((shift(own[c], 0, 1) > 0) | (shift(own[c], 0, -1) > 0))
        along, across = np.where(beside > 0, columns, rows), np.where(beside > 0, rows, columns)
        at_green = (5.0 * raw - along - diagonal + 0.5 * across) / 8.0
        picture[..., c] += green * at_green + own[2 - c] * 0.75 * cross
    return picture


def _edge_directed(raw: Plane, masks: Picture) -> Picture:
    """Green along the weaker gradient, then colour differences (after Hamilton and Adams 1997)."""
    left, right, up, down = (shift(raw, *step) for step in ((0, -1), (0, 1), (-1, 0), (1, 0)))
    second_h = 2.0 * raw - shift(raw, 0, -2) - shift(raw, 0, 2)
    second_v = 2.0 * raw - shift(raw, -2, 0) - shift(raw, 2, 0)
    rough_h, rough_v = np.abs(left - right) + np.abs(second_h), np.abs(up - down) + np.abs(second_v)
    green_h, green_v = (left + right) / 2.0 + second_h / 4.0, (up + down) / 2.0 + second_v / 4.0
    towards = np.clip(0.5 + (rough_v - rough_h) / (rough_v + rough_h + 1e-6), 0.0, 1.0)
    green = np.where(masks[..., 1] > 0, raw, green_h * towards + green_v * (1.0 - towards))
    return _with_differences(raw, masks, green)


def _smooth_hue(raw: Plane, masks: Picture) -> Picture:
    """Bilinear green, then colour differences (after Cok 1987, differences in place of ratios)."""
    return _with_differences(raw, masks, _filled(raw * masks[..., 1], masks[..., 1]))


def _with_differences(raw: Plane, masks: Picture, green: Plane) -> Picture:
    planes = [green + _filled((raw - green) * masks[..., c], masks[..., c]) for c in (0, 2)]
    return np.stack([planes[0], green, planes[1]], axis=-1)


def _smoothed_chroma(picture: Picture, sigma: float) -> Picture:
    grey = picture.mean(axis=2, keepdims=True)
    result: Picture = grey + blur(picture - grey, sigma)
    return result


DEMOSAICS = {"bilinear": _bilinear, "malvar": _malvar, "edge_directed": _edge_directed, "smooth_hue": _smooth_hue}
