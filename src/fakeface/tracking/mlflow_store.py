"""Events in, rows of MLflow out. The only module that imports mlflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.tracking import alive
from fakeface.tracking.identity import Experiment, private_folder
from fakeface.tracking.naming import clean_name, short_value
from fakeface.tracking.undelivered import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = "fakeface"
KEY, CONTENT, STAGE, EVALUATED = "fakeface.key", "fakeface.content", "fakeface.stage", "fakeface.evaluated"
LAST_WORDS, RESTORED = "fakeface.last_words", "fakeface.restored_from_cache"
WHOLE = "experiment"  # what the tag STAGE says of a parent
_NOTE, _PARENT = "mlflow.note.content", "mlflow.parentRunId"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A server that is away must not hold up the training: what fails is kept and sent later.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
_REASONS = {
    ("out-of-date database schema", "Can't locate revision"): (
        "was made by another version of MLflow (copy the file, then run `mlflow db upgrade` on it)"
    ),
    ("database is locked",): "is locked by another program (close what writes to it)",
    ("No space left", "disk is full"): "has no space left (free some)",
    ("Max retries", "Connection", "timed out"): "does not answer (check that it runs, and MLFLOW_TRACKING_URI)",
}


def default_uri(main: Path) -> str:
    """MLFLOW_TRACKING_URI, or sqlite in the main folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{main / 'mlflow.db'}"


class MlflowStore:
    """One tracking store, local or served; `connect` first."""

    def __init__(self, main: Path, uri: str) -> None:
        self.uri = uri
        self._main = main
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._runs: dict[tuple[str, str], str] = {}
        self._recorded: dict[str, dict[tuple[str, int], float]] = {}

    @property
    def client(self) -> MlflowClient:
        """The connected client."""
        if self._client is None:
            raise RuntimeError("connect() first")
        return self._client

    def connect(self) -> None:
        """Open the store, made if need be; raises what MLflow raises where that fails."""
        if self._client is not None:
            return
        mlflow = _quiet_mlflow()
        with alive.lock(private_folder(self._main) / "store.lock"):  # a first use of sqlite by two at once fails
            mlflow.set_tracking_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            self._experiment_id = self._find_or_create_experiment(client)
            mlflow.set_experiment(experiment_id=self._experiment_id)
        self._client = client

    def disconnect(self) -> None:
        """Forget the connection and every run found through it."""
        self._client = None
        self._runs.clear()
        self._recorded.clear()

    def record(self, event: Event) -> None:
        """Write one event; writing it twice leaves the same."""
        experiment = Experiment(**event.experiment)
        getattr(self, f"_record_{event.kind}")(event, experiment)

    # ---- the kinds of event ----

    def _record_start(self, event: Event, experiment: Experiment) -> None:
        parent = self._parent(experiment, event.time_ms)
        self._add_parameters(parent, event.payload.get("parameters", {}))
        self._set_tags(parent, event.payload.get("tags", {}))
        self.client.update_run(parent, status="RUNNING", name=experiment.name)
        if event.stage:
            child = self._child(experiment, event.stage, event.time_ms)
            self._add_parameters(child, event.payload.get("stage_parameters", {}))
            self._set_tags(child, event.payload.get("stage_tags", {}))
            self.client.update_run(child, status="RUNNING")

    def _record_metrics(self, event: Event, experiment: Experiment) -> None:
        parent = self._parent(experiment, event.time_ms)
        numbers, step = event.payload["metrics"], event.payload["step"]
        if event.stage:
            self._add_metrics(self._child(experiment, event.stage, event.time_ms), numbers, step, event.time_ms)
            numbers = {f"{event.stage}/{name}": value for name, value in numbers.items()}
        self._add_metrics(parent, numbers, step, event.time_ms)

    def _record_files(self, event: Event, experiment: Experiment) -> None:
        run_id = self._run(experiment, event.stage, event.time_ms)
        for path in event.files:
            self.client.log_artifact(run_id, path, event.payload["folder"] or None)

    def _record_tags(self, event: Event, experiment: Experiment) -> None:
        self._set_tags(self._run(experiment, event.stage, event.time_ms), event.payload["tags"])

    def _record_model(self, event: Event, experiment: Experiment) -> None:
        run_id = self._run(experiment, event.stage, event.time_ms)
        hash_tag = f"model.{event.payload['name']}.sha256"
        if self.client.get_run(run_id).data.tags.get(hash_tag) != event.payload["sha256"]:
            log_keras_model(Path(event.files[0]), run_id=run_id, **_without(event.payload, "sha256"))
            self.client.set_tag(run_id, hash_tag, event.payload["sha256"])

    def _record_restored(self, event: Event, experiment: Experiment) -> None:
        """A stage that DVC took from its cache: its row, made from what it left on disk; nothing where a row exists."""
        if self._find(experiment.key, event.stage):
            return
        child = self._child(experiment, event.stage, event.time_ms)
        self._add_parameters(child, event.payload["stage_parameters"])
        self._set_tags(child, {RESTORED: "true", **event.payload["stage_tags"]})
        parent = self._parent(experiment, event.time_ms)
        for step, numbers in event.payload["history"]:
            self._add_metrics(child, numbers, step, event.time_ms)
            mirrored = {f"{event.stage}/{name}": value for name, value in numbers.items()}
            self._add_metrics(parent, mirrored, step, event.time_ms)
        self.client.set_terminated(child, "FINISHED", event.time_ms)

    def _record_end(self, event: Event, experiment: Experiment) -> None:
        """A stage that failed fails the experiment; one that finished leaves it running until it is evaluated."""
        status, words = event.payload["status"], event.payload.get("last_words", "")
        parent = self._parent(experiment, event.time_ms)
        if event.stage:
            child = self._child(experiment, event.stage, event.time_ms)
            self._close(child, status, words, event.time_ms)
            words = f"{event.stage}: {words}" if words else ""
            evaluated = self.client.get_run(parent).data.tags.get(EVALUATED) == "true"
            if status == "FINISHED" and not evaluated:
                self._say(parent, "")
                return
        elif event.payload.get("evaluated"):
            self.client.set_tag(parent, EVALUATED, "true")
        self._close(parent, status, words, event.time_ms)

    def _record_abandoned(self, event: Event, experiment: Experiment) -> None:
        """The command that ran the stages is gone: a row still open, with no failed stage, has all it will get."""
        parent = self._find(experiment.key, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self.client.set_tag(parent.info.run_id, EVALUATED, "false")
            self.client.set_terminated(parent.info.run_id, "FINISHED", event.time_ms)

    # ---- rows ----

    def _run(self, experiment: Experiment, stage: str, time_ms: int) -> str:
        return self._child(experiment, stage, time_ms) if stage else self._parent(experiment, time_ms)

    def _parent(self, experiment: Experiment, time_ms: int) -> str:
        identity = {KEY: experiment.key, CONTENT: experiment.content_key, STAGE: WHOLE}
        tags = {**experiment.tags, **identity, _NOTE: experiment.note}
        return self._find_or_create(
            experiment, WHOLE, lambda: self._adopted(experiment, tags) or self._create(experiment.name, tags, time_ms)
        )

    def _child(self, experiment: Experiment, stage: str, time_ms: int) -> str:
        parent = self._parent(experiment, time_ms)
        tags = {**experiment.tags, KEY: experiment.key, STAGE: stage, _PARENT: parent}
        return self._find_or_create(experiment, stage, lambda: self._create(stage, tags, time_ms))

    def _find_or_create(self, experiment: Experiment, stage: str, create: Callable[[], str]) -> str:
        place = (experiment.key, stage)
        if place not in self._runs:
            with alive.lock(private_folder(self._main) / "rows.lock"):
                found = self._find(*place)
                self._runs[place] = found.info.run_id if found else create()
        return self._runs[place]

    def _find(self, key: str, stage: str) -> MlflowRun | None:
        return self._first(f"tags.`{KEY}` = '{key}' and tags.`{STAGE}` = '{stage}'")

    def _first(self, condition: str) -> MlflowRun | None:
        runs = self.client.search_runs([self._experiment_id], condition, max_results=1)
        return runs[0] if runs else None

    def _create(self, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        tags = {key: _tag(value) for key, value in tags.items()}
        run = self.client.create_run(self._experiment_id, start_time=time_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _adopted(self, experiment: Experiment, tags: Mapping[str, str]) -> str:
        """The row of the same work that was cut short under another name of DVC's choosing, now this experiment's."""
        of_same_work = f"tags.`{CONTENT}` = '{experiment.content_key}' and tags.`{STAGE}` = '{WHOLE}'"
        old = self._first(f"{of_same_work} and attributes.status = 'FAILED'")
        if not old:
            return ""
        old_key = old.data.tags[KEY]
        for run in self.client.search_runs([self._experiment_id], f"tags.`{KEY}` = '{old_key}'"):
            self._set_tags(run.info.run_id, {**experiment.tags, KEY: experiment.key})
        self._set_tags(old.info.run_id, tags)
        return str(old.info.run_id)

    def _add_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        """MLflow keeps the first value of a parameter; one that differs later (another device) becomes a tag."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params if parameters else {}
        new = [Param(key, value) for key, value in parameters.items() if key not in known]
        for part in _parts(new, 100):
            self.client.log_batch(run_id, params=part)
        changed = {key: value for key, value in parameters.items() if known.get(key, value) != value}
        self._set_tags(run_id, {f"later.{key}": value for key, value in changed.items()})

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(clean_name(key), _tag(value)) for key, value in tags.items()]
        for part in _parts(entries, 100):
            self.client.log_batch(run_id, tags=part)

    def _add_metrics(self, run_id: str, numbers: Mapping[str, float], step: int, time_ms: int) -> None:
        """Points the row does not have yet; a stage that starts again writes the same points again."""
        from mlflow.entities import Metric

        recorded = self._points(run_id)
        new = {name: value for name, value in numbers.items() if recorded.get((name, step)) != value}
        metrics = [Metric(name, value, time_ms, step) for name, value in new.items()]
        for part in _parts(metrics, 1000):
            self.client.log_batch(run_id, metrics=part)
        recorded |= {(name, step): value for name, value in new.items()}

    def _points(self, run_id: str) -> dict[tuple[str, int], float]:
        if run_id not in self._recorded:
            names = self.client.get_run(run_id).data.metrics
            history = [point for name in names for point in self._history(run_id, name)]
            self._recorded[run_id] = {(point.key, point.step): point.value for point in history}
        return self._recorded[run_id]

    def _history(self, run_id: str, name: str) -> list[Metric]:
        return sorted(self.client.get_metric_history(run_id, name), key=lambda point: point.timestamp)

    def _close(self, run_id: str, status: str, words: str, time_ms: int) -> None:
        self._say(run_id, words)
        self.client.set_terminated(run_id, status, time_ms)

    def _say(self, run_id: str, words: str) -> None:
        """Put the last words at the head of the description, or take them away when the run came through after all."""
        tags = self.client.get_run(run_id).data.tags
        if words == tags.get(LAST_WORDS, ""):
            return
        note = tags.get(_NOTE, "").split("\n\n---\n\n")[-1]
        self.client.set_tag(run_id, LAST_WORDS, _tag(words))
        self.client.set_tag(run_id, _NOTE, _tag(f"**Ended early.** {words}\n\n---\n\n{note}" if words else note))

    def _find_or_create_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            local = self.uri.startswith("sqlite:")
            place = (self._main / "mlartifacts").as_uri() if local else None
            return str(client.create_experiment(EXPERIMENT, artifact_location=place))
        if found.lifecycle_stage == "deleted":  # MLflow gives its name to no other, and runs cannot be written to it
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def log_keras_model(  # noqa: PLR0913
    path: Path, *, run_id: str, name: str, step: int, input_dtype: str, tags: Mapping[str, str]
) -> str:
    """Log a Keras HDF5 model to a run, with its signature and pinned requirements; returns `models:/…`."""
    mlflow = _quiet_mlflow()
    import numpy as np
    import tensorflow as tf
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = tf.keras.models.load_model(path, compile=False)
    dtype = np.dtype(input_dtype or model.inputs[0].dtype.as_numpy_dtype)
    size = (-1, *model.input_shape[1:])
    images, scores = TensorSpec(dtype, size, "images"), TensorSpec(np.dtype("float32"), (-1, *model.output_shape[1:]))
    logged = mlflow.tensorflow.log_model(
        model,
        name=name,
        run_id=run_id,
        step=step,
        tags=dict(tags),
        signature=ModelSignature(Schema([images]), Schema([scores])),
        pip_requirements=[f"{package}=={_version(package)}" for package in ("mlflow", "tensorflow", "numpy")],
    )
    return str(logged.model_uri)


def reason(error: BaseException) -> str:
    """Why a store did not take something, as the end of a sentence, with what to do."""
    text, code = " ".join(str(error).split()), getattr(error, "error_code", "")
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return "refuses the user name or password (check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
    if code == "PERMISSION_DENIED":
        return "does not let this user write (ask its owner for the right to edit)"
    known = (said for signs, said in _REASONS.items() if any(sign in text for sign in signs))
    return next(known, f"took nothing ({text[:200]})")


def is_refused(error: BaseException) -> bool:
    """Whether sending the same event again can never work."""
    return getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE" or isinstance(
        error, (ValueError, TypeError, KeyError, AttributeError)
    )


def is_gone(error: BaseException) -> bool:
    """Whether the row was deleted by someone while we wrote to it."""
    code, text = getattr(error, "error_code", ""), str(error)
    return code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in text


def _quiet_mlflow() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    # Failures are told in our own words, once; MLflow would print a traceback for each.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    return mlflow


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return metadata.version(f"{package}-cpu")  # tensorflow's other name


def _tag(value: str) -> str:
    return value if len(value) <= 5000 else short_value(value)  # characters: what MLflow before 2.10 takes


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))
