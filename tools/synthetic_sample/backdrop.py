"""What is behind the person: one of several kinds of background, out of focus by a random amount."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .noise_fields import Colour, Picture, Plane, blend, blur, bump, cloud, cover, grain, smoothstep, strands


def backdrop(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    """Linear-light background over the picture coordinates x, y (-1..1)."""
    kinds: list[Callable[[np.random.Generator, Plane, Plane, Picture], Picture]] = [
        _studio, _studio, _lights, _stripes, _bricks, _foliage, _window, _shelves,
    ]  # fmt: skip
    direction = rng.uniform(0, 2 * np.pi)
    along = smoothstep(-1.2, 1.2, x * np.cos(direction) + y * np.sin(direction))
    near, far = random_colour(rng), random_colour(rng)
    base = near + (far - near) * along[..., None]
    picture = kinds[int(rng.integers(len(kinds)))](rng, x, y, base)
    picture = blur(picture, float(rng.choice([0.0, 0.6, 1.5, 4.0])))
    texture = cloud(rng, len(x), 24, 3, 0.8) * rng.uniform(0.0, 0.12) + grain(rng, len(x), 0.4, 2.0) * rng.uniform(
        0, 0.04
    )
    return np.clip(picture * (1.0 + texture[..., None]), 0.0, 1.5)


def random_colour(rng: np.random.Generator, saturation: float = 1.0) -> Colour:
    """A linear-light colour of random hue; most are muted."""
    grey = rng.uniform(0.03, 0.6)
    tint = rng.uniform(0.3, 1.7, 3)
    strength = saturation * rng.uniform() ** 1.5
    colour: Colour = grey * (1.0 + (tint - 1.0) * strength)
    return colour


def _studio(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    light = 0.7 + 0.6 * bump(np.hypot(x - rng.uniform(-0.6, 0.6), y - rng.uniform(-0.6, 0.3)), rng.uniform(0.5, 1.2))
    mottle = 1.0 + rng.uniform(0.0, 0.35) * cloud(rng, len(x), 4, 4)
    result: Picture = base * (light * mottle)[..., None]
    return result


def _lights(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    picture = base * 0.5
    for _ in range(int(rng.integers(6, 22))):
        radius = rng.uniform(0.04, 0.16)
        disc = cover(radius - np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)), rng.uniform(0.01, 0.05))
        picture = picture + random_colour(rng, 1.5) * (disc * rng.uniform(0.2, 1.0))[..., None]
    return picture


def _stripes(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    direction = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    wave = np.sin((x * np.cos(direction) + y * np.sin(direction)) * rng.uniform(8, 45) + rng.uniform(0, 6))
    return blend(base, random_colour(rng), smoothstep(-0.3, 0.3, wave) * rng.uniform(0.2, 0.9))


def _bricks(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    height, width = rng.uniform(0.1, 0.3), rng.uniform(0.2, 0.6)
    row = np.floor((y + 5) / height)
    along = (x + 5) / width + 0.5 * (row % 2)
    tone = strands(rng, row * 37.0 + np.floor(along) * 11.0)
    across, down = (along % 1) * width, ((y + 5) / height % 1) * height
    joint = np.minimum(np.minimum(across, width - across), np.minimum(down, height - down))
    return blend(
        random_colour(rng) * np.ones_like(base), base * (0.6 + 0.7 * tone)[..., None], cover(joint - 0.012, 0.012)
    )


def _foliage(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    leaves = cloud(rng, len(x), int(rng.integers(8, 28)), 3, 0.8)
    picture = blend(base * 0.35, base * np.array([0.9, 1.25, 0.7]), smoothstep(-0.3, 0.4, leaves))
    return blend(
        picture, np.array([0.95, 1.0, 1.0]), smoothstep(0.45, 0.6, cloud(rng, len(x), 14, 2)) * rng.uniform(0, 0.9)
    )


def _window(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    left, top = rng.uniform(-1.3, 0.2), rng.uniform(-1.3, -0.4)
    wide, high = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.6)
    pane = cover(np.minimum(np.minimum(x - left, left + wide - x), np.minimum(y - top, top + high - y)), 0.01)
    bars = np.minimum(np.abs(x - left - wide / 2), np.abs(y - top - high / 2))
    sky = random_colour(rng) + rng.uniform(0.3, 0.8)
    view = sky * (1.0 + 0.3 * cloud(rng, len(x), 6, 3))[..., None]
    return blend(base * 0.7, view, pane * cover(bars - 0.03, 0.01))


def _shelves(rng: np.random.Generator, x: Plane, y: Plane, base: Picture) -> Picture:
    height = rng.uniform(0.35, 0.6)
    row = np.floor((y + 5) / height)
    place = (x + 5) * rng.uniform(9, 18) + row * 17.3
    tints = [strands(rng, np.floor(place)) for _ in range(3)]
    books = np.stack(tints, axis=-1)
    books = (books * 0.55 + 0.45 * books.mean(axis=-1, keepdims=True)) ** 2 * rng.uniform(0.3, 0.8)
    top = strands(rng, np.floor(place)) * 0.3
    level = ((y + 5) / height) % 1
    books = books * cover(np.minimum(place % 1, 1 - place % 1) - 0.05, 0.1)[..., None]
    return blend(base * 0.4, books, cover(np.minimum(level - top, 0.93 - level), 0.02))
