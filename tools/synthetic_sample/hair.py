"""Hair behind and over the head, and what people wear: hats, glasses, earrings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backdrop import random_colour
from .head import Head, Surface
from .noise_fields import Picture, Plane, blend, bump, cloud, cover, grain, rgb, smoothstep, strands


@dataclass(frozen=True)
class HairStyle:
    """Measures of one haircut in the head's (u, v) frame."""

    kind: str  # bald, buzz, short, medium, long, curly, bun
    volume: float
    top: float
    front: float  # where the hairline meets the forehead
    sides: float  # how far the hair reaches down beside the face
    behind: float  # how far it reaches down behind the neck
    part: float
    wave: float
    fringe: float


def random_style(rng: np.random.Generator) -> HairStyle:
    """Draw a haircut."""
    kind = str(
        rng.choice(
            ["bald", "buzz", "short", "medium", "long", "curly", "bun"], p=[0.06, 0.08, 0.27, 0.18, 0.2, 0.15, 0.06]
        )
    )
    sides = {"bald": -2.0, "buzz": 0.0, "short": 0.08, "medium": 0.6, "long": 1.2, "curly": 0.3, "bun": 0.0}[kind]
    behind = {"bald": -2.0, "buzz": -2.0, "short": 0.3, "medium": 0.9, "long": 1.8, "curly": 0.7, "bun": 0.2}[kind]
    volume = {"bald": 1.0, "buzz": 1.01, "short": 1.07, "medium": 1.13, "long": 1.12, "curly": 1.25, "bun": 1.05}[kind]
    return HairStyle(
        kind, volume * rng.uniform(0.99, 1.07), rng.uniform(0.02, 0.13), rng.uniform(-0.68, -0.5),
        sides + rng.normal(0, 0.08), behind + rng.normal(0, 0.15), rng.uniform(-0.5, 0.5), rng.uniform(0.0, 1.0),
        rng.uniform(0.1, 0.3) if rng.uniform() < 0.3 else 0.0,
    )  # fmt: skip


def hair_behind(rng: np.random.Generator, head: Head, style: HairStyle, s: Surface, picture: Picture) -> Picture:
    """The hair seen beside and below the head."""
    if style.behind < -1.0:
        return picture
    half = head.width * style.volume * (1.08 + 0.12 * smoothstep(0.0, 1.2, s.v) * style.wave)
    ragged = (strands(rng, s.u * 22 + 60) - 0.5) * 0.25
    body = 1.0 - np.abs(s.u / half) ** 2.4 - np.maximum(-s.v, 0.0) ** 2.4
    inside = np.minimum(body * 0.4, style.behind + ragged - s.v)
    if style.kind == "curly":
        inside = inside + 0.05 * cloud(rng, len(s.u), 18, 2)
    if style.kind == "bun":
        inside = np.maximum(inside, 0.34 - np.hypot(s.u - 0.2 * style.part, s.v + 1.15))
    return blend(picture, _texture(rng, head, style, s) * 0.62, cover(inside, head.softness * 1.5))


def hair_over(rng: np.random.Generator, head: Head, style: HairStyle, s: Surface, picture: Picture) -> Picture:
    """The hair on the scalp down to the hairline."""
    if style.kind == "bald":
        return picture
    lift = style.top if style.kind != "buzz" else 0.0
    outline = 1.0 - (s.u / (head.width * style.volume)) ** 2 - np.abs((s.v - 0.02) / (1.0 + lift)) ** 2.2
    beside = smoothstep(0.62, 0.95, np.abs(s.f + 0.03))
    front = style.front + style.fringe - 0.16 * style.part * s.f + 0.12 * np.abs(s.f - style.part * 0.5)
    jagged = (strands(rng, s.f * 26.0 + s.g * 6.0 + 80.0) - 0.5) * (0.09 + 0.5 * style.fringe)
    line = front + (style.sides - front) * beside + jagged
    if style.kind == "curly":
        outline = outline + 0.12 * cloud(rng, len(s.u), 20, 2)
        line = line + 0.05 * cloud(rng, len(s.u), 24, 2)
    share = cover(outline * 0.4, head.softness * 2) * cover(line - s.g, 0.035)
    if style.kind == "buzz":
        share = share * (0.55 + 0.2 * smoothstep(-1.0, 1.0, grain(rng, len(s.u), 0.5, 1.5)))
    shadow = bump(np.minimum(s.g - line, 0.5), 0.06) * (s.g > line) * cover(s.inside, 0.02)
    picture = picture * (1.0 - 0.3 * shadow)[..., None]
    return blend(picture, _texture(rng, head, style, s), share)


def _texture(rng: np.random.Generator, head: Head, style: HairStyle, s: Surface) -> Picture:
    crown_u, crown_v = style.part * 0.35, -0.95
    radius = np.hypot(s.u - crown_u, s.v - crown_v)
    angle = np.arctan2(s.v - crown_v, s.u - crown_u)
    bend = style.wave * (0.25 * np.sin(radius * 8 + rng.uniform(0, 6)) + 0.4 * cloud(rng, len(s.u), 5, 2))
    if style.kind == "curly":
        bend = bend + 1.2 * cloud(rng, len(s.u), 16, 2)
    flow = 500 + (grain(rng, len(s.u), 0.5, 2.0) * 2 if style.kind == "buzz" else (angle + bend * 0.5) * 26)
    fibre = 0.45 * strands(rng, flow) + 0.35 * strands(rng, flow * 2.3) + 0.2 * strands(rng, flow * 4.7)
    shine = bump(radius - rng.uniform(0.35, 0.7), 0.13) * rng.uniform(0.1, 0.7) * fibre
    tone = 0.35 + 1.3 * fibre
    colour = head.hair_colour * tone[..., None] * (1.0 + 0.15 * (strands(rng, flow * 0.4) - 0.5))[..., None]
    result: Picture = colour + (shine * 0.22)[..., None] * (head.hair_colour + 0.25)
    return result


def hat(rng: np.random.Generator, head: Head, s: Surface, picture: Picture) -> Picture:
    """A knitted cap or a headband for a few."""
    if rng.uniform() > 0.1:
        return picture
    low, high = rng.uniform(-0.55, -0.4), (-2.0 if rng.uniform() < 0.65 else -0.62)
    outline = 1.0 - (s.u / (head.width * 1.13)) ** 2 - np.abs(s.v / 1.12) ** 2.2
    edge = s.g - low - 0.1 * s.f**2
    knit = 0.75 + 0.25 * np.sin(s.f * 90) * np.sin(s.g * 70 + np.sin(s.f * 90))
    round_shade = 0.5 + 0.5 * np.sqrt(np.clip(outline, 0, 1))
    colour = random_colour(rng, 1.4) * (knit * round_shade)[..., None]
    inside = np.minimum(np.minimum(outline * 0.4, -edge), s.g - high)
    return blend(picture, colour, cover(inside, head.softness * 2))


def glasses(rng: np.random.Generator, head: Head, s: Surface, picture: Picture) -> Picture:
    """Frames with a faint reflection for some."""
    if rng.uniform() > 0.22:
        return picture
    wide, high, power = rng.uniform(0.2, 0.25), rng.uniform(0.13, 0.19), rng.choice([2.0, 3.0, 5.0])
    thick, frame = rng.uniform(0.012, 0.035), random_colour(rng, 1.2) * rng.choice([0.05, 0.3, 1.0])
    dark = rng.uniform(0.6, 0.9) if rng.uniform() < 0.15 else rng.uniform(0.0, 0.12)
    soft = head.softness * 1.5
    for sign in (-1.0, 1.0):
        p, q = (s.f - sign * 0.375) / wide, (s.g - head.eye_y - 0.02) / high
        distance = ((np.abs(p) ** power + np.abs(q) ** power) ** (1 / power) - 1.0) * high
        lens = cover(-distance, soft)
        picture = picture * (1.0 - dark * lens)[..., None]
        streak = bump(p + q * 0.6 - rng.uniform(-0.6, 0.6), 0.12) * rng.uniform(0.0, 0.25)
        picture = picture + (streak * lens)[..., None]
        picture = blend(picture, frame, cover(thick - np.abs(distance), soft))
        arm = (
            cover(thick * 0.8 - np.abs(s.g - head.eye_y + 0.03), soft)
            * (s.f * sign > 0.375 + wide)
            * cover(s.inside, soft)
        )
        picture = blend(picture, frame, arm)
    bridge = cover(thick * 0.8 - np.abs(s.g - head.eye_y + 0.02 + 0.3 * s.f**2), soft) * (np.abs(s.f) < 0.39 - wide)
    return blend(picture, frame, bridge)


def ears(rng: np.random.Generator, head: Head, s: Surface, picture: Picture, light: Plane) -> Picture:
    """Both ears beside the head; the turned-away one hides behind it. Some carry earrings."""
    ring = rng.uniform() < 0.18
    metal = rgb(0.9, 0.7, 0.3) if rng.uniform() < 0.5 else rgb(0.8, 0.8, 0.82)
    size = rng.uniform(0.85, 1.15)
    for sign in (-1.0, 1.0):
        u = (
            s.u
            - sign * head.width * (0.985 - 0.05 * head.jaw + 0.05 * size) * np.cos(head.yaw)
            - 0.1 * np.sin(head.yaw)
        )
        v = s.v - head.eye_y - 0.12
        distance = 1.0 - np.hypot(u / (0.1 * size), v / (0.2 * size))
        fold = 1.0 - 0.35 * bump(distance - 0.45, 0.12) + 0.1 * bump(distance - 0.15, 0.08)
        colour = head.skin * np.array([1.0, 0.85, 0.82]) * (fold * light)[..., None]
        picture = blend(picture, colour, cover(distance * 0.1, head.softness))
        if ring:
            drop = np.abs(np.hypot(u, v - 0.25 * size) - 0.045) - 0.012
            picture = blend(picture, metal * (0.6 + 0.6 * bump(u + 0.02, 0.02))[..., None], cover(-drop, head.softness))
    return picture
