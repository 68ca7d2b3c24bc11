"""One random scene: a person before a background, as linear light. Both classes draw from this alone."""

from __future__ import annotations

import numpy as np

from .backdrop import backdrop, random_colour
from .hair import ears, glasses, hair_behind, hair_over, hat, random_style
from .head import Head, Surface, beard, eyes, face_height, lips, nose_marks, random_head, skin_colour, surface
from .noise_fields import Colour, Picture, Plane, blend, bump, cloud, cover, grain, rgb, smoothstep, strands


def render_scene(rng: np.random.Generator, pixels: int) -> Picture:
    """Linear-light picture (pixels, pixels, 3), mostly within 0..1, of a person who does not exist."""
    axis = (np.arange(pixels) + 0.5) * (2.0 / pixels) - 1.0
    x, y = axis[None, :] + np.zeros((pixels, 1)), axis[:, None] + np.zeros((1, pixels))
    picture = backdrop(rng, x, y)
    head, style = random_head(rng, pixels), random_style(rng)
    s = surface(head, x, y)
    key, ambient = _direction(rng), rng.uniform(0.2, 0.55)
    warmth = 1.0 + rng.normal(0, 0.07) * np.array([1.0, 0.0, -1.2])
    picture = hair_behind(rng, head, style, s, picture)
    picture = _body(rng, head, s, picture, key, ambient)
    picture = ears(rng, head, s, picture, 0.75 + 0.25 * np.sign(s.u) * key[0])
    face, shading, shine = _lit_face(rng, head, s, key, ambient)
    lit = (face * shading[..., None] + shine[..., None] * 0.5) * warmth
    picture = blend(picture, lit, cover(s.inside, head.softness * 1.2))
    picture = hair_over(rng, head, style, s, picture)
    picture = glasses(rng, head, s, hat(rng, head, s, picture))
    corners = 1.0 - rng.uniform(0.0, 0.25) * smoothstep(0.6, 1.5, np.hypot(x, y))
    return np.clip(picture * corners[..., None], 0.0, 2.0)


def _direction(rng: np.random.Generator) -> Colour:
    """Where the key light comes from: a unit vector (right, down, towards the viewer)."""
    across, up = rng.uniform(-0.9, 0.9), rng.uniform(0.0, 0.7)
    vector = np.array([across, -up, rng.uniform(0.5, 1.1)])
    result: Colour = vector / np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    return result


def _lit_face(
    rng: np.random.Generator, head: Head, s: Surface, key: Colour, ambient: float
) -> tuple[Picture, Plane, Plane]:
    """Albedo, diffuse light and highlight of the face."""
    height = face_height(rng, head, s) + s.depth * 0.62
    step = head.softness
    down, right = np.gradient(height, step)
    steep = np.sqrt(1.0 + right**2 + down**2)
    facing = (-right * key[0] - down * key[1] + key[2]) / steep
    diffuse = np.clip((facing + 0.2) / 1.2, 0.0, None)
    hollow = 1.0 - 0.25 * bump(np.abs(s.f) - 0.25, 0.08) * bump(s.g - head.eye_y + 0.02, 0.08)
    shading = (ambient * (0.75 + 0.25 / steep) + (1.15 - ambient) * diffuse) * hollow
    half = np.array([key[0], key[1], key[2] + 1.0])
    half = half / np.sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2)
    glance = np.clip((-right * half[0] - down * half[1] + half[2]) / steep, 0.0, 1.0)
    shine = rng.uniform(0.03, 0.22) * glance ** rng.uniform(12, 40)
    face = beard(rng, head, s, lips(rng, head, s, skin_colour(rng, head, s)))
    face = eyes(rng, head, s, nose_marks(head, s, face))
    return face, shading, shine


def _body(rng: np.random.Generator, head: Head, s: Surface, picture: Picture, key: Colour, ambient: float) -> Picture:
    """Neck, shoulders and clothes."""
    centre = np.sin(head.yaw) * -0.08
    half = head.width * rng.uniform(0.52, 0.68) * (1.0 + 0.25 * smoothstep(1.0, 1.6, s.v))
    side = np.clip((s.u - centre) / half, -1, 1)
    light = ambient + (1.0 - ambient) * np.clip(np.sqrt(1 - side**2) * key[2] + side * key[0] + 0.1, 0, None)
    under = 1.0 - 0.55 * smoothstep(1.35, 0.75, s.v)
    skin = head.skin * (light * under * (1.0 + 0.05 * cloud(rng, len(side), 12, 3)))[..., None]
    picture = blend(picture, skin, cover(np.minimum(half - np.abs(s.u - centre), s.v - 0.3), head.softness * 1.5))
    slope, level = rng.uniform(0.25, 0.5), rng.uniform(1.12, 1.3)
    neckline = {"round": 0.35, "shirt": 0.15, "v": 0.1}[str(rng.choice(["round", "shirt", "v"]))]
    shoulder = s.v - level - slope * np.abs(s.u) ** 1.6 * 0.5
    hole = neckline + 0.1 - np.hypot((s.u - centre) * 0.55, (s.v - level) * rng.uniform(0.5, 1.0))
    wide = 1.75 - np.abs(s.u)
    cloth = _cloth(rng, s) * (0.45 + 0.6 * np.clip(0.6 + 0.4 * s.u * key[0], 0, 1.2))[..., None]
    inside = np.minimum(np.minimum(shoulder, wide), -hole)
    picture = picture * (1.0 - 0.4 * bump(np.minimum(inside, 0.0), 0.03) * (inside < 0) * (s.v > 1))[..., None]
    return blend(picture, cloth, cover(inside, head.softness * 1.5))


def _cloth(rng: np.random.Generator, s: Surface) -> Picture:
    base, other = random_colour(rng, 1.3), random_colour(rng, 1.3)
    pattern = rng.choice(["plain", "plain", "stripes", "plaid", "flecks"])
    folds = 1.0 + 0.3 * cloud(rng, len(s.u), 5, 3)
    weave = 1.0 + rng.uniform(0.02, 0.12) * grain(rng, len(s.u), 0.5, 1.8)
    step = rng.uniform(18, 45)
    masks: dict[str, Plane] = {
        "plain": 0 * s.u,
        "stripes": smoothstep(-0.2, 0.2, np.sin((s.v if rng.uniform() < 0.6 else s.u) * step)),
        "plaid": 0.5 * smoothstep(0, 0.3, np.sin(s.u * step)) + 0.5 * smoothstep(0, 0.3, np.sin(s.v * step)),
        "flecks": (strands(rng, s.u * 40 + 100) * strands(rng, s.v * 40 + 100) > 0.45).astype(np.float64),
    }
    cloth = blend(base * np.ones((*s.u.shape, 3)), other, masks[str(pattern)])
    result: Picture = np.clip(cloth * (folds * weave)[..., None], 0.0, 1.0) + rgb(0.004, 0.004, 0.004)
    return result
