"""The augmentation steps that params.yaml may name: a table of operations and their arguments. No TensorFlow here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fakeface.system.errors import UserError


@dataclass(frozen=True)
class Argument:
    """One argument of an operation: a number, an integer, a [low, high] pair, or one word of several."""

    kind: Literal["number", "integer", "range", "word"]
    default: Any
    minimum: float = -math.inf
    maximum: float = math.inf
    words: tuple[str, ...] = ()
    one_number_means: Literal["up to", "exactly"] = "exactly"  # how a range is read when it is given as one number

    @property
    def wanted(self) -> str:
        """What a valid value looks like, in words."""
        if self.kind == "word":
            return "one of " + ", ".join(self.words)
        noun = {"number": "a number", "integer": "a whole number", "range": "a number or a pair [low, high]"}[self.kind]
        return f"{noun} from {self.minimum:g} to {self.maximum:g}"


def _backend(*names: str) -> Argument:
    return Argument("word", names[0], words=names)


def _probability(default: float = 1.0) -> Argument:
    return Argument("number", default, 0, 1)


def _factors(low: float, high: float) -> dict[str, Argument]:
    return {
        "low": Argument("number", low, 0, 4),
        "high": Argument("number", high, 0, 4),
        "probability": _probability(),
    }


_GEOMETRY_BACKEND = _backend("opencv", "tensorflow")
_KERNEL = Argument("word", "any", words=("any", "box", "bilinear", "bicubic", "lanczos"))

# Operation -> argument -> what is allowed. Sigmas are in pixels of the stored image, `noise` in levels of 0..255.
OPERATIONS: Mapping[str, Mapping[str, Argument]] = {
    # The notebook's own. The default backend is the library that the notebook used; the others give the same within a
    # tolerance that tests/training/test_augmentation.py states.
    "gaussian_filter2d": {
        "size": Argument("integer", 3, 1, 31),
        "sigma": Argument("number", 1.0, 0.01, 16),
        "probability": _probability(),
        "backend": _backend("addons", "tensorflow", "opencv"),
    },
    "gaussian_blur": {
        "sigma": Argument("range", (0.0, 0.5), 0, 8, one_number_means="up to"),
        "probability": _probability(),
        "backend": _backend("imgaug", "tensorflow", "opencv"),
    },
    "jpeg_compression": {  # imgaug's scale: 0 is the best picture, 100 the worst
        "compression": Argument("range", (50.0, 65.0), 0, 100),
        "probability": _probability(),
        "backend": _backend("imgaug", "opencv"),
    },
    # Geometry. Neighbours in the list become one transform with one interpolation; nearest pixels fill the border.
    # `random_zoom` keeps a share of the side: below 1 it enlarges, above 1 it makes smaller.
    "flip": {"probability": _probability(0.5)},
    "rotate": {
        "degrees": Argument("number", 20.0, 0, 180),
        "probability": _probability(),
        "backend": _GEOMETRY_BACKEND,
    },
    "shift": {
        "fraction": Argument("number", 0.18, 0, 1),
        "probability": _probability(),
        "backend": _GEOMETRY_BACKEND,
    },
    "random_zoom": {
        "low": Argument("number", 0.7, 0.1, 2),
        "high": Argument("number", 1.0, 0.1, 2),
        "max_offset": Argument("number", 0.0, 0, 1),
        "probability": _probability(),
        "backend": _GEOMETRY_BACKEND,
    },
    # Colour.
    "brightness": _factors(0.5, 1.3),
    "contrast": _factors(0.7, 1.3),
    "gamma": {
        "strength": Argument("number", 0.3, 0, 3),
        "probability": _probability(),
    },  # exponent from e^-strength to e^strength
    "saturation": _factors(0.7, 1.3),
    "grey": {"probability": _probability(0.1)},
    # What happens to a picture on its way through the net
    "blur": {
        "sigma": Argument("range", (0.0, 3.0), 0, 16, one_number_means="up to"),
        "probability": _probability(0.5),
    },
    "resample": {
        "low": Argument("number", 0.5, 0.05, 1),
        "high": Argument("number", 1.0, 0.05, 1),
        "kernel": _KERNEL,
        "probability": _probability(0.3),
    },
    "noise": {
        "sigma": Argument("range", (0.0, 8.0), 0, 128, one_number_means="up to"),
        "probability": _probability(0.3),
    },
    "jpeg": {
        "quality": Argument("range", (40, 100), 1, 100),
        "probability": _probability(0.3),
        "backend": _backend("opencv", "tensorflow"),
    },
}


def check_steps(steps: Sequence[Mapping[str, Any]], where: str = "augmentation") -> tuple[dict[str, Any], ...]:
    """Give the steps with every argument filled in, a range as a (low, high) tuple.

    `where` is the key in params.yaml, for the message. Checking what was checked before changes nothing.

    Raises:
        UserError: a step is no mapping, names an unknown operation or argument, or a value is out of its range.
    """
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise UserError(f"{where} is {steps!r}; give a list of steps such as [{{op: flip}}], or [] for none.")
    return tuple(_checked_step(step, f"{where}[{index}]") for index, step in enumerate(steps))


def _checked_step(step: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(step, Mapping) or "op" not in step:
        raise UserError(f"{where} is {step!r}; a step names its operation, for example {{op: flip}}.")
    operation = step["op"]
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise UserError(f"{where}.op is {operation!r}, which is unknown; use one of {', '.join(OPERATIONS)}.")
    arguments = OPERATIONS[operation]
    for name in step:
        if name != "op" and name not in arguments:
            raise UserError(f"{where}.{name} is no argument of {operation}; it takes {', '.join(arguments)}.")
    checked: dict[str, Any] = {"op": operation}
    for name, argument in arguments.items():
        checked[name] = _checked_value(step.get(name, argument.default), argument, f"{where}.{name}")
    if "low" in checked and checked["low"] > checked["high"]:
        raise UserError(f"{where}.low is {checked['low']:g}, above high, {checked['high']:g}; exchange them.")
    if operation == "gaussian_filter2d" and checked["size"] % 2 == 0:
        raise UserError(f"{where}.size is {checked['size']}; use an odd number, so that the filter has a middle.")
    return checked


def _checked_value(value: Any, argument: Argument, where: str) -> Any:
    if argument.kind == "word":
        if value not in argument.words:
            raise UserError(f"{where} is {value!r}; use {argument.wanted}.")
        return value
    if argument.kind == "range":
        return _checked_range(value, argument, where)
    if not _is_number(value, argument):
        raise UserError(f"{where} is {value!r}; use {argument.wanted}.")
    return int(value) if argument.kind == "integer" else float(value)


def _checked_range(value: Any, argument: Argument, where: str) -> tuple[float, float]:
    if _is_number(value, argument):
        return (float(argument.minimum if argument.one_number_means == "up to" else value), float(value))
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(end, argument) for end in value)
    if not is_pair or value[0] > value[1]:
        raise UserError(f"{where} is {value!r}; use {argument.wanted}.")
    return (float(value[0]), float(value[1]))


def _is_number(value: Any, argument: Argument) -> bool:
    kinds = int if argument.kind == "integer" else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    return is_number and argument.minimum <= value <= argument.maximum  # NaN compares false
