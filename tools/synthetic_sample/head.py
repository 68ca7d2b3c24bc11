"""The bare head: its shape in space, skin and features.

Two frames are used. (u, v) lies in the picture, turned with the head's roll: v is -1 at the top of the skull and 1 at
the chin. (f, g) lies on the head's surface and turns with yaw and pitch: f is -1..1 between the sides, g like v.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .noise_fields import (
    Colour,
    Picture,
    Plane,
    blend,
    bump,
    cloud,
    cover,
    grain,
    mixed,
    rgb,
    smoothstep,
    strands,
    window,
)


@dataclass(frozen=True)
class Head:
    """Shape, pose and colours of one person's head."""

    x: float
    y: float
    scale: float
    roll: float
    yaw: float
    pitch: float
    width: float
    jaw: float
    square: float
    skin: Colour
    age: float
    hair_colour: Colour
    eye_y: float
    mouth_y: float
    softness: float  # width of one picture element in (u, v)


@dataclass(frozen=True)
class Surface:
    """Coordinates of every pixel with respect to the head."""

    u: Plane
    v: Plane
    f: Plane
    g: Plane
    depth: Plane
    inside: Plane  # about the distance to the outline, positive within


SKIN = [
    rgb(0.72, 0.47, 0.36),
    rgb(0.62, 0.37, 0.26),
    rgb(0.48, 0.27, 0.17),
    rgb(0.30, 0.16, 0.095),
    rgb(0.14, 0.07, 0.045),
]
HAIR = [
    rgb(0.012, 0.01, 0.009), rgb(0.035, 0.02, 0.012), rgb(0.09, 0.045, 0.022), rgb(0.19, 0.1, 0.05),
    rgb(0.42, 0.28, 0.13), rgb(0.22, 0.06, 0.02), rgb(0.4, 0.39, 0.38), rgb(0.68, 0.67, 0.66),
]  # fmt: skip
IRIS = [
    rgb(0.06, 0.03, 0.015),
    rgb(0.16, 0.08, 0.03),
    rgb(0.12, 0.13, 0.06),
    rgb(0.1, 0.17, 0.26),
    rgb(0.2, 0.24, 0.26),
]


def random_head(rng: np.random.Generator, pixels: int) -> Head:
    """Draw a head that fills about two thirds of a picture of `pixels` x `pixels`."""
    scale = rng.uniform(0.62, 0.82)
    tone = rng.uniform(0, len(SKIN) - 1.001)
    skin = SKIN[int(tone)] + (SKIN[int(tone) + 1] - SKIN[int(tone)]) * (tone % 1)
    age = float(rng.beta(1.3, 2.0))
    grey = rng.uniform() < max(0.0, age - 0.35) * 1.6
    hair = HAIR[int(rng.integers(6, 8))] if grey else HAIR[int(rng.integers(0, 3 if tone > 2.0 else 6))]
    return Head(
        x=rng.normal(0, 0.07), y=rng.normal(0.0, 0.05), scale=scale,
        roll=rng.normal(0, 0.09), yaw=float(np.clip(rng.normal(0, 0.28), -0.6, 0.6)), pitch=rng.normal(0, 0.1),
        width=rng.uniform(0.66, 0.82), jaw=rng.uniform(0.08, 0.3), square=rng.uniform(2.0, 2.7),
        skin=skin * rng.uniform(0.88, 1.12, 3), age=age, hair_colour=hair * rng.uniform(0.75, 1.3),
        eye_y=rng.uniform(-0.04, 0.06), mouth_y=rng.uniform(0.51, 0.59), softness=2.0 / pixels / scale,
    )  # fmt: skip


def surface(head: Head, x: Plane, y: Plane) -> Surface:
    """Turn picture coordinates into the head's."""
    dx, dy = (x - head.x) / head.scale, (y - head.y) / head.scale
    u = dx * np.cos(head.roll) + dy * np.sin(head.roll)
    v = dy * np.cos(head.roll) - dx * np.sin(head.roll)
    half = head.width * (1.0 - head.jaw * smoothstep(-0.1, 1.0, v) + 0.06 * bump(v - 0.75, 0.15) * (head.square - 2.0))
    across = u / half
    full = 1.0 - across**2 - np.abs(v) ** head.square
    depth = np.sqrt(np.maximum(full, 0.0))
    f = across * np.cos(head.yaw) - depth * np.sin(head.yaw)
    turned = across * np.sin(head.yaw) + depth * np.cos(head.yaw)
    g = v * np.cos(head.pitch) - turned * np.sin(head.pitch)
    return Surface(u, v, f, g, depth, full * 0.36)


def face_height(rng: np.random.Generator, head: Head, s: Surface) -> Plane:
    """Hills and hollows of the face over the egg shape, in units of (u, v)."""
    f, g = s.f, s.g
    nose_long, nose_wide = rng.uniform(0.28, 0.36), rng.uniform(0.075, 0.13)
    tip = head.eye_y + nose_long
    side = f - np.sin(head.yaw) * 0.1 * smoothstep(head.eye_y, tip, g)
    ridge = smoothstep(head.eye_y - 0.12, tip, g) * smoothstep(tip + 0.07, tip - 0.02, g)
    height = rng.uniform(0.14, 0.24) * ridge * bump(side, nose_wide * (0.6 + 0.5 * ridge))
    height += 0.07 * bump(np.hypot(side, g - tip + 0.02), 0.075)
    for sign in (-1.0, 1.0):
        height += 0.05 * bump(np.hypot(side - sign * nose_wide * 1.1, g - tip), 0.045)
        height -= 0.07 * bump(f - sign * 0.37, 0.16) * bump(g - head.eye_y, 0.09)
        height += 0.035 * bump(f - sign * 0.36, 0.2) * bump(g - head.eye_y + 0.17, 0.06)
        height += rng.uniform(0.02, 0.06) * bump(np.hypot(f - sign * 0.5, g - 0.3), 0.16)
        fold = np.abs(f) - (0.2 + (g - tip) * 0.75)
        height -= head.age * 0.03 * bump(fold, 0.025) * smoothstep(tip - 0.05, tip + 0.06, g) * smoothstep(0.62, 0.5, g)
    height += 0.045 * bump(f, 0.25) * bump(g - head.mouth_y, 0.09) + 0.05 * bump(f, 0.2) * bump(g - 0.88, 0.1)
    height -= 0.03 * bump(f, 0.15) * bump(g - head.mouth_y - 0.15, 0.035)
    wrinkles = np.sin(g * 75 + 2.0 * smooth_line(f)) * bump(g + 0.45, 0.13) * bump(f, 0.45)
    result: Plane = (
        height + head.age**2 * 0.006 * wrinkles + grain(rng, len(f), 0.7, 2.5) * (0.0008 + 0.0012 * head.age)
    )
    return result


def smooth_line(f: Plane) -> Plane:
    """A gentle wave across the forehead, so that wrinkles are not ruled lines."""
    result: Plane = np.sin(f * 7.0) + 0.6 * np.sin(f * 13.0 + 1.0)
    return result


def skin_colour(rng: np.random.Generator, head: Head, s: Surface) -> Picture:
    """Albedo of the skin with blush, blotches, pores, freckles and stubble."""
    f, g = s.f, s.g
    picture = np.ones((*f.shape, 3)) * head.skin
    blotch = cloud(rng, len(f), 10, 4, 0.7)
    picture = picture * (1.0 + 0.09 * blotch[..., None] * np.array([0.6, 1.0, 1.1]))
    cheeks = bump(np.hypot(np.abs(f) - 0.48, g - 0.3), 0.17) + 0.7 * bump(np.hypot(f, g - head.eye_y - 0.3), 0.1)
    picture = blend(picture, picture * np.array([1.08, 0.78, 0.75]), np.clip(cheeks, 0, 1) * rng.uniform(0.1, 0.9))
    tired = bump(np.abs(f) - 0.36, 0.14) * bump(g - head.eye_y - 0.1, 0.05)
    picture = picture * (1.0 - rng.uniform(0.05, 0.3) * tired)[..., None]
    pores = grain(rng, len(f), 0.5, 1.6)
    picture = picture * (1.0 + rng.uniform(0.015, 0.05) * pores)[..., None]
    if rng.uniform() < 0.25:
        spots = smoothstep(1.4, 2.2, grain(rng, len(f), 1.0, 3.0)) * (bump(g - 0.2, 0.25) + 0.2)
        picture = blend(picture, picture * np.array([0.6, 0.45, 0.4]), np.clip(spots, 0, 1) * rng.uniform(0.3, 0.9))
    return np.clip(picture, 0.0, 1.0)


def lips(rng: np.random.Generator, head: Head, s: Surface, picture: Picture) -> Picture:
    """Paint the mouth: smile or frown, open or closed, with or without lipstick."""
    half, smile = rng.uniform(0.23, 0.33), rng.normal(0.05, 0.06)
    side = s.f - np.sin(head.yaw) * 0.05
    p = np.clip(side / half, -1.4, 1.4)
    bow = np.maximum(1.0 - p**2, 0.0)
    line = s.g - (head.mouth_y - smile * p**2 * 0.9 + smile * 0.3)
    opening = max(0.0, rng.normal(0.0, 0.045)) * bow
    upper = rng.uniform(0.035, 0.065) * bow**0.7 * (1.0 - 0.3 * bump(p, 0.12))
    lower = rng.uniform(0.05, 0.09) * bow**0.6
    natural = head.skin * np.array([1.0, 0.55, 0.55])
    painted = mixed(rng, rgb(0.45, 0.03, 0.05), rgb(0.5, 0.15, 0.2))
    colour = natural + (painted - natural) * (rng.uniform(0.3, 0.9) if rng.uniform() < 0.3 else rng.uniform(0, 0.15))
    lines = 1.0 + 0.12 * (strands(rng, p * 24 + 50) - 0.5) + 0.1 * grain(rng, len(p), 0.5, 2.0)
    shine = rng.uniform(0.0, 0.35) * bump(line - opening / 2 - lower * 0.45, 0.015) * bump(p, 0.35)
    lip = colour * (lines * (0.85 + 0.15 * (line > 0)))[..., None] + shine[..., None] * 0.5
    soft = head.softness * 1.5
    inside = np.minimum(line + opening / 2 + upper, opening / 2 + lower - line)
    picture = blend(picture, lip, cover(inside - 0.004, soft) * (bow > 0))
    tooth = 0.62 - 0.35 * bump((p * 4.5) % 1.0 - 0.5, 0.07) - 0.25 * np.abs(p)
    teeth = np.where(line < opening * 0.15, tooth, 0.03)[..., None] * np.array([1.0, 0.93, 0.82])
    picture = blend(picture, teeth, cover(opening / 2 - np.abs(line), soft) * (bow > 0))
    seam = bump(np.abs(line) - opening / 2, 0.008 + 0.004 * bow) * cover(1.02 - np.abs(p), 0.1)
    return picture * (1.0 - 0.65 * seam)[..., None]


def nose_marks(head: Head, s: Surface, picture: Picture) -> Picture:
    """Darken the nostrils and the shade under the nose."""
    side = s.f - np.sin(head.yaw) * 0.1
    holes = bump(np.hypot((np.abs(side) - 0.065) * 0.7, s.g - head.eye_y - 0.335), 0.016)
    under = bump(side, 0.11) * bump(s.g - head.eye_y - 0.36, 0.03)
    result: Picture = picture * (1.0 - 0.7 * holes - 0.15 * under)[..., None]
    return result


def eyes(rng: np.random.Generator, head: Head, s: Surface, picture: Picture) -> Picture:
    """Paint both eyes with lids, lashes and brows."""
    style = {
        "gap": rng.uniform(0.34, 0.41), "half": rng.uniform(0.15, 0.19), "open": max(0.012, rng.normal(0.07, 0.02)),
        "tilt": rng.normal(0.02, 0.03), "gaze_x": rng.normal(0, 0.045), "gaze_y": rng.normal(0, 0.012),
        "lash": rng.uniform(0.3, 1.0), "brow_y": rng.uniform(0.13, 0.2), "brow_tilt": rng.normal(0.0, 0.05),
        "brow_thick": rng.uniform(0.018, 0.045), "shade": rng.uniform(0.0, 0.6) * (rng.uniform() < 0.35),
    }  # fmt: skip
    iris = IRIS[int(rng.integers(0, 2 if head.skin[0] < 0.4 else 5))] * rng.uniform(0.8, 1.3)
    makeup = rng.uniform(0.05, 0.5, 3)
    picture = picture.copy()
    for sign in (-1.0, 1.0):
        # Only the box around the eye is drawn: this is the costliest part of a face.
        part = window(
            (np.abs(s.f - sign * style["gap"]) < 0.33) & (np.abs(s.g - head.eye_y + 0.05) < 0.36) & (s.inside > 0)
        )
        near = Surface(*(getattr(s, plane.name)[part] for plane in fields(Surface)))
        painted = _eye(rng, head, near, picture[part], sign, style, iris, makeup)
        picture[part] = _brow(rng, head, near, painted, sign, style)
    return picture


def _eye(
    rng: np.random.Generator, head: Head, s: Surface, picture: Picture, sign: float,
    style: dict[str, float], iris: Colour, makeup: Colour,
) -> Picture:  # fmt: skip
    p = (s.f - sign * style["gap"]) / style["half"] * sign
    q = s.g - head.eye_y + style["tilt"] * p
    arch = np.maximum(1.0 - p**2, 0.0)
    top, bottom = -style["open"] * arch**0.8 * (1.0 + 0.15 * p), style["open"] * 0.62 * arch
    soft = head.softness * 1.3
    lid = bump(q - top + 0.03, 0.035) * bump(p, 0.75)
    picture = blend(picture, makeup * np.ones_like(picture), lid * style["shade"])
    crease = bump(q - top * 1.25 + 0.028, 0.009) * cover(1.05 - np.abs(p), 0.2)
    picture = picture * (1.0 - 0.45 * crease - 0.25 * bump(q - bottom - 0.012, 0.01) * (np.abs(p) < 1))[..., None]
    x = (s.f - sign * style["gap"] - style["gaze_x"]) * head.width
    y = q - style["gaze_y"] + style["open"] * 0.12
    radius, size = np.hypot(x, y), 0.062
    spokes = 0.6 + 0.8 * strands(rng, (np.arctan2(y, x) + np.pi) * 9) * smoothstep(0.0, size, radius)
    white = (
        np.array([0.72, 0.68, 0.65])
        * (0.75 + 0.25 * smoothstep(0.0, 0.05, q - top))[..., None]
        * (1.0 - 0.3 * p**2)[..., None]
    )
    ball = blend(
        white,
        iris * spokes[..., None] * (1.0 - 0.6 * bump(radius - size, 0.012))[..., None],
        cover(size - radius, soft),
    )
    ball = blend(ball, rgb(0.006, 0.005, 0.005), cover(size * 0.43 - radius, soft))
    picture = blend(picture, ball, cover(np.minimum(q - top, bottom - q), soft) * (arch > 0))
    glint = cover(0.016 - np.hypot(x + 0.02, y + 0.022), soft) * (q > top)
    picture = blend(picture, rgb(1.1, 1.1, 1.1), glint * (arch > 0))
    comb = 0.45 + 0.55 * strands(rng, p * 14 + 40)
    lashes = cover(0.010 + 0.02 * style["lash"] * comb - np.abs(q - top + 0.012 * style["lash"]), soft * 1.3)
    return blend(
        picture, rgb(0.015, 0.01, 0.008), lashes * cover(1.08 - np.abs(p), 0.15) * (0.45 + 0.5 * style["lash"])
    )


def _brow(
    rng: np.random.Generator, head: Head, s: Surface, picture: Picture, sign: float, style: dict[str, float]
) -> Picture:
    p = (s.f - sign * (style["gap"] + 0.01)) / (style["half"] * 1.35) * sign
    centre = head.eye_y - style["brow_y"] - 0.035 * (1.0 - p**2) + style["brow_tilt"] * p
    thick = style["brow_thick"] * (1.1 - 0.55 * np.clip(p + 0.3, -1, 1))
    hairs = strands(rng, p * 17.0 - (s.g - centre) * 150.0 + 60.0)
    band = cover(thick * (0.75 + 0.5 * hairs) - np.abs(s.g - centre), 0.03) * cover(1.0 - np.abs(p), 0.25)
    return blend(picture, head.hair_colour * 0.8, band * (0.35 + 0.6 * hairs))


def beard(rng: np.random.Generator, head: Head, s: Surface, picture: Picture) -> Picture:
    """Some faces get stubble, a moustache or a full beard."""
    kind = rng.choice(["none", "stubble", "moustache", "full"], p=[0.62, 0.16, 0.06, 0.16])
    hairs = strands(rng, s.f * 70 + 4 * np.sin(s.g * 9) + grain(rng, len(s.f), 1.0, 3.0) * 0.6 + 300)
    hairs = 0.6 * hairs + 0.4 * smoothstep(-1, 1, grain(rng, len(s.f), 0.6, 2.0))
    edge = rng.uniform(0.25, 0.5)
    jawline = smoothstep(edge, edge + 0.16, s.g + 0.55 * (np.abs(s.f) - 0.55)) * smoothstep(0.0, 0.3, s.g - 0.05)
    lip_gap = 1.0 - bump(s.f, 0.2) * bump(s.g - head.mouth_y - 0.01, 0.055)
    top_lip = smoothstep(0.32, 0.24, np.abs(s.f)) * bump(s.g - head.mouth_y + 0.095, 0.035)
    area = {"none": 0 * s.f, "stubble": jawline + top_lip, "moustache": 1.2 * top_lip, "full": jawline + top_lip}[
        str(kind)
    ]
    strength = rng.uniform(0.2, 0.5) if kind == "stubble" else rng.uniform(0.75, 1.0)
    share = np.clip(area, 0, 1) * np.clip(lip_gap, 0, 1) * strength * (0.45 + 0.55 * hairs)
    return blend(picture, head.hair_colour * (0.5 + 1.0 * hairs)[..., None], np.clip(share, 0, 1))
