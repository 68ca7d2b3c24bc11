"""models/stageN.h5: a network's weights, and beside them, in the same file, what is needed to use it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.images.preprocessing import Reencoding
from fakeface.metrics.calibration import Calibration
from fakeface.system.errors import UserError
from fakeface.system.filesystem import annotate_os_error, ensure_dir

if TYPE_CHECKING:
    import tensorflow as tf

_ATTRIBUTE, _SUM = "fakeface", "fakeface_sha256"
_VERSION = 2  # of what is stored: goes up with the fields of CheckpointMetadata and with the names of layers
_NO_SUM = b"sha256 not yet taken".ljust(64, b".")  # as long as one in hexadecimal


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of itself; `calibration` turns its raw scores into probabilities and predictions."""

    stage: str
    recipe: str
    network: str
    channels: tuple[int, ...]
    image_size: int
    batch_norm_momentum: float
    flip_tta: bool
    precision: str
    note: str | None
    calibration: Calibration
    reencoding: Reencoding | None = None  # what the images it learned from went through, and every other has to


def save_checkpoint(model: tf.keras.Model, facts: CheckpointMetadata, path: Path) -> None:
    """Write a Keras HDF5 model with `facts` as an attribute: beside the target first, then renamed, never half.

    The bytes depend on weights and facts alone. The optimizer is left out, because each stage starts a fresh one.
    A second attribute has the sha256 of the whole file, taken while _NO_SUM stood in its place.
    """
    import h5py
    import numpy as np

    ensure_dir(path.parent)
    partial = path.with_name(f".{path.name}.partial.h5")
    reencoding = facts.reencoding and facts.reencoding._asdict()
    fields = {
        "version": _VERSION,
        **asdict(facts),
        "calibration": facts.calibration.to_json(),
        "reencoding": reencoding,
    }
    with annotate_os_error(partial):
        model.save(partial, save_format="h5", include_optimizer=False)
        with h5py.File(partial, "r+") as file:
            file.attrs[_ATTRIBUTE] = json.dumps(fields, sort_keys=True)
            file.attrs[_SUM] = np.bytes_(_NO_SUM)
        content = partial.read_bytes()
        partial.write_bytes(content.replace(_NO_SUM, hashlib.sha256(content).hexdigest().encode()))
    partial.replace(path)


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read what a checkpoint says of itself, without TensorFlow, after comparing all its bytes with its sum.

    Raises:
        UserError: the file is missing, no HDF5 file, not one of ours, or has other bytes than were written.
    """
    import h5py

    if not path.is_file():
        raise UserError(f"{path} is missing; `dvc repro` trains it, `dvc pull` fetches one trained elsewhere.")
    try:
        with h5py.File(path, "r") as file:
            fields: dict[str, Any] = json.loads(file.attrs[_ATTRIBUTE])
            stated = bytes(file.attrs[_SUM])
        version = fields.pop("version", 1)
        if version != _VERSION:
            raise UserError(
                f"{path} is a checkpoint of version {version}, and this fakeface reads version {_VERSION}; run "
                "`dvc repro` again."
            )
        calibration = Calibration.from_json(fields["calibration"])
        reencoding = Reencoding(**fields["reencoding"]) if fields.get("reencoding") else None
        rebuilt = {"channels": tuple(fields["channels"]), "calibration": calibration, "reencoding": reencoding}
        facts = CheckpointMetadata(**{**fields, **rebuilt})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError):  # h5py has all of these for a damaged file
        raise UserError(
            f"{path} is not a checkpoint of this version of fakeface (damaged, or made elsewhere); delete it and run "
            "`dvc repro` again."
        ) from None
    if not _has_written_checksum(path, stated):
        raise UserError(
            f"{path} is damaged: its bytes are not those written; delete it, and its object in DVC's cache if it came "
            "from there (docs/data.md says how), and run `dvc repro` again."
        )
    return facts


def _has_written_checksum(path: Path, stated: bytes) -> bool:
    content = path.read_bytes()
    if len(stated) != len(_NO_SUM) or content.count(stated) != 1:
        return False
    return hashlib.sha256(content.replace(stated, _NO_SUM)).hexdigest().encode() == stated


class ModelCache:
    """Loads checkpoints as the networks that score, over both views where they say so; not for training.

    To build a network, and TensorFlow's first look at it, take longer than to score hundreds of images. So checkpoints
    of equal build take turns in one network: use one before the next is loaded.
    """

    def __init__(self) -> None:
        self._build_model: dict[tuple[object, ...], tuple[tf.keras.Model, tf.keras.Model]] = {}

    def load(self, path: Path) -> tuple[tf.keras.Model, CheckpointMetadata]:
        """Return the network with the checkpoint's weights, and what the checkpoint says of itself.

        Raises:
            UserError: as load_checkpoint.
        """
        from fakeface.models.flip_tta import with_flip_tta

        facts = read_metadata(path)
        kind = (*_list_build_arguments(facts), facts.flip_tta)
        if kind not in self._build_model:
            network = _build_model(facts)
            self._build_model[kind] = network, with_flip_tta(network) if facts.flip_tta else network
        network, detector = self._build_model[kind]
        _load_weights(network, facts, path)
        return detector, facts


def load_checkpoint(path: Path) -> tuple[tf.keras.Model, CheckpointMetadata]:
    """Rebuild the network in this machine's precision, whatever it was trained in, and load its weights.

    Raises:
        UserError: as read_metadata, and for weights that do not fit the network named.
    """
    facts = read_metadata(path)
    model = _build_model(facts)
    _load_weights(model, facts, path)
    return model, facts


def _build_model(facts: CheckpointMetadata) -> tf.keras.Model:
    from fakeface.models.networks import build_network

    return build_network(*_list_build_arguments(facts))


def _list_build_arguments(facts: CheckpointMetadata) -> tuple[str, tuple[int, ...], int, float]:
    return facts.network, facts.channels, facts.image_size, facts.batch_norm_momentum


def _load_weights(model: tf.keras.Model, facts: CheckpointMetadata, path: Path) -> None:
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"{path} does not hold the weights of the network '{facts.network}' ({error}); run `dvc repro` again."
        ) from None
