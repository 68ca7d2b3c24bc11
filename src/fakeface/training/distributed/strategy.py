"""One training on several GPUs or machines, on TensorFlow's own engines, with the loss curve of one machine.

Every replica (a GPU, or a machine without one) gets an equal part of each batch of params.yaml; the rate stays. Its
part is augmented as it would be within the whole batch, batch norms take the statistics of the whole batch, and the
gradients' mean is over it: what differs from one machine is rounding, and which units dropout leaves out. A plain copy
of the network holds what is read and written, so checkpoints and kept epochs are those of one machine.
"""

from __future__ import annotations

import io
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fakeface.data.input_pipeline import BatchShard
from fakeface.system.errors import UserError
from fakeface.training.distributed.cluster import Cluster

if TYPE_CHECKING:
    import tensorflow as tf

_Words = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Distribution:
    """A strategy of tf.distribute, and the machines of it (None: this one alone)."""

    strategy: tf.distribute.Strategy
    cluster: Cluster | None = None

    @property
    def replicas(self) -> int:
        """Into how many parts a batch is divided, over all machines."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process keeps and writes what the training gives."""
        return self.cluster is None or self.cluster.is_chief

    def share(self) -> BatchShard:
        """The parts of each batch that this process reads."""
        machines = len(self.cluster.addresses) if self.cluster else 1
        here = self.replicas // machines
        return BatchShard(first=here * (self.cluster.number if self.cluster else 0), count=here, of=self.replicas)

    def datasets(self, make: Callable[[BatchShard], tf.data.Dataset]) -> Any:
        """Return what `fit` takes in place of the dataset that `make` gives for one process."""
        return self.strategy.distribute_datasets_from_function(lambda _context: make(self.share()))

    def clone_model(self, model: tf.keras.Model) -> tf.keras.Model:
        """Return a network like `model` on every replica, whose batch norms look at the whole batch."""
        import tensorflow as tf

        from fakeface.training.distributed.sync_batch_norm import WholeBatchNorm

        def layer(original: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
            if isinstance(original, tf.keras.layers.BatchNormalization):
                return WholeBatchNorm.like(original)
            return type(original).from_config(original.get_config())

        with self.strategy.scope():
            return tf.keras.models.clone_model(model, clone_function=layer)

    def replicate(self, model: tf.keras.Model, compiled: Callable[[tf.keras.Model], None]) -> Replicas:
        """Return the copies of a compiled model, which `compiled` compiles alike."""
        return Replicas(self, model, compiled)

    def broadcast_from_chief(self, text: str, values: Sequence[npt.NDArray[Any]]) -> tuple[str, list[npt.NDArray[Any]]]:
        """Return the chief's text and arrays, bit for bit, on every machine."""
        if self.cluster is None:
            return text, list(values)
        message = _pack(text, values) if self.is_chief else b""
        (length,) = self._sum(np.array([len(message)], np.int32))
        words = np.zeros(-(-int(length) // 4), np.int32)
        words.view(np.uint8)[: len(message)] = np.frombuffer(message, np.uint8)
        return _unpack(self._sum(words).tobytes()[: int(length)])

    def check_same_inputs(self, digest: str) -> None:
        """Compare a SHA-256 (hex) over code, settings and images with those of the other machines.

        Raises:
            UserError: one has another; said on each machine.
        """
        if self.cluster is None:
            return
        mine = np.frombuffer(bytes.fromhex(digest), np.int32)
        all_of_them = np.zeros((len(self.cluster.addresses), len(mine)), np.int32)
        all_of_them[self.cluster.number] = mine
        summed = self._sum(all_of_them.ravel()).reshape(all_of_them.shape)
        others = [
            address for address, sums in zip(self.cluster.addresses, summed, strict=True) if (sums != summed[0]).any()
        ]
        if others:
            raise UserError(
                f"{' and '.join(others)} and the chief {self.cluster.chief} differ in code, params.yaml or "
                "datasets/split; bring all machines to one commit and one split (`dvc pull datasets/split`)."
            )

    def wait_for_all(self) -> None:
        """Return when every machine has come here."""
        if self.cluster is not None:
            _wait_interruptibly(lambda: self._sum(np.zeros(1, np.int32)))

    @contextmanager
    def report_lost_workers(self, kept: Callable[[], str]) -> Iterator[None]:
        """Turn the end of another machine into one sentence, with `kept` in it.

        Raises:
            UserError: a machine does not answer any more.
        """
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            silent = self.cluster.silent() if self.cluster else []
            away = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
            if self.cluster is None or not (silent or isinstance(error, away)):
                raise
            traceback.clear_frames(error.__traceback__)  # a pool of threads in them complains when Python ends
            gone = " and ".join(silent) or "another machine of TF_CONFIG"
            raise UserError(
                f"{gone} does not answer any more; {kept()}; start the "
                "same command again on every machine to go on from there."
            ) from None

    def _sum(self, words: _Words) -> _Words:
        """Return the sum over all machines of integers, of which every machine has equally many."""
        import tensorflow as tf

        first = self.share().first

        def each(mine: Any) -> Any:
            context = tf.distribute.get_replica_context()
            counted = mine if context.replica_id_in_sync_group == first else tf.zeros_like(mine)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, counted)

        run = tf.function(lambda mine: self.strategy.run(each, (mine,)))
        summed = self.strategy.experimental_local_results(run(tf.constant(words)))[0]
        return np.asarray(summed, np.int32)


def distribute(cluster: Cluster | None, batch_size: int) -> Distribution | None:
    """Return how to divide a training among the visible GPUs and the machines of a cluster; None for one of one.

    Call it before TensorFlow's first operation. Waits until all machines are there.

    Raises:
        UserError: the batches cannot be divided equally among the machines.
    """
    import tensorflow as tf

    if cluster is not None:
        found = Distribution(_connect_machines(cluster), cluster)
        if batch_size % found.replicas:
            raise UserError(
                f"batch_size {batch_size} cannot be divided into {found.replicas} equal parts, one for each GPU or "
                "machine of TF_CONFIG; choose a multiple."
            )
        return found
    usable = count_usable_gpus(batch_size, len(tf.config.get_visible_devices("GPU")))
    if usable < 2:
        return None
    return Distribution(tf.distribute.MirroredStrategy([f"GPU:{number}" for number in range(usable)]))


def count_usable_gpus(batch_size: int, gpus: int) -> int:
    """Return the most GPUs, of those there are, that a batch can be divided among equally."""
    return max((count for count in range(1, gpus + 1) if batch_size % count == 0), default=0)


def _connect_machines(cluster: Cluster) -> Any:
    import tensorflow as tf

    print(f"worker {cluster.number + 1} of {len(cluster.addresses)}: waits for {', '.join(cluster.others)}", flush=True)
    cluster.wait_for_others()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except Exception as error:
        raise UserError(
            f"TensorFlow cannot join the machines of TF_CONFIG ({str(error).splitlines()[0]}); check that this "
            f"machine has the address {cluster.addresses[cluster.number]} and that its port is free."
        ) from None


def _wait_interruptibly(wait: Callable[[], object]) -> None:
    """Wait in a thread, because the main one hears no signal while TensorFlow has it."""
    trouble: list[Exception] = []

    def waiting() -> None:
        try:
            wait()
        except Exception as error:
            trouble.append(error)

    thread = threading.Thread(target=waiting, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    for error in trouble:
        raise error


class Replicas:
    """A compiled plain model (with its optimizer) and its copy on the replicas, compiled alike by `compile_copy`."""

    def __init__(
        self, distribution: Distribution, plain: tf.keras.Model, compile_copy: Callable[[tf.keras.Model], None]
    ) -> None:
        self.distribution, self.plain = distribution, plain
        self.copy = distribution.clone_model(plain)
        with distribution.strategy.scope():
            compile_copy(self.copy)

    def spread(self, text: str) -> str:
        """Give all replicas the chief's plain values; returns the chief's text."""
        said, values = self.distribution.broadcast_from_chief(
            text, [np.asarray(each) for each in _list_variables(self.plain)]
        )
        for model in (self.plain, self.copy):
            for variable, value in zip(_list_variables(model), values, strict=True):
                variable.assign(value)
        return said

    def gather(self) -> None:
        """Give the plain model the values of this machine's first replica, which all share."""
        local = self.distribution.strategy.experimental_local_results
        for variable, copied in zip(_list_variables(self.plain), _list_variables(self.copy), strict=True):
            variable.assign(local(copied)[0].read_value())


def _list_variables(model: tf.keras.Model) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]


def _pack(text: str, values: Sequence[npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.frombuffer(text.encode(), np.uint8), *values)
    return buffer.getvalue()


def _unpack(message: bytes) -> tuple[str, list[npt.NDArray[Any]]]:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        text, *values = (arrays[f"arr_{number}"] for number in range(len(arrays.files)))
    return text.tobytes().decode(), values
