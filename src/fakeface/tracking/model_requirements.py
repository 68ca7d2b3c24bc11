"""What a loaded model needs, pinned as it was trained."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

_NEEDED = ("mlflow", "tensorflow-cpu", "h5py", "numpy", "pandas")  # what detector_model.py imports


def read_pinned_requirements(path: Path) -> tuple[str, ...]:
    """`name==version` of each package that the logged model imports, from a hashed requirements file.

    A package that the file does not name is pinned to what is installed.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.MULTILINE))
    return tuple(f"{name}=={pins.get(name) or _read_installed(name)}" for name in _NEEDED)


def _read_installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return metadata.version(name.removesuffix("-cpu"))  # the CUDA build of TensorFlow is called otherwise
