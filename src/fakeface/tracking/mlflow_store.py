"""Events in, rows of MLflow out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.system.project import open_private_folder
from fakeface.tracking import alive, comparison, local_files
from fakeface.tracking.identity import Experiment
from fakeface.tracking.ledger import Ledger
from fakeface.tracking.rows import CHILD, DETECTOR, EVALUATED, KEY, RESULT, STAGE, WHOLE, Rows
from fakeface.tracking.undelivered import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

RESTORED = "fakeface.restored_from_cache"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # A server that is away must not hold up the training: what fails is kept and sent later.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


class MlflowStore:
    """One tracking store, local or served; `connect` before anything else."""

    def __init__(self, main: Path, uri: str) -> None:
        self.main, self.uri = main, uri
        self._ledger = Ledger(main, uri)
        self.name = self._ledger.store
        self._rows: Rows | None = None

    @property
    def rows(self) -> Rows:
        """The rows of the connected store."""
        if self._rows is None:
            raise RuntimeError("connect() first")
        return self._rows

    @property
    def client(self) -> MlflowClient:
        """The connected client."""
        return self.rows.client

    def connect(self) -> None:
        """Open the store, made if need be; raises what MLflow raises where that fails."""
        if self._rows is not None:
            return
        mlflow = quiet_mlflow()
        with alive.lock(open_private_folder(self.main) / "store.lock"):  # a first use of sqlite by two at once fails
            mlflow.set_tracking_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
            if self.uri == local_files.uri(self.main):
                local_files.follow_moved_folder(self.main)
        self._rows = Rows(client, self.main, self._ledger)

    def disconnect(self) -> None:
        """Forget the connection and every run found through it."""
        self._rows = None

    def record(self, event: Event) -> None:
        """Write one event; writing it twice leaves the same."""
        writers = {
            "start": self._start,
            "metrics": self._metrics,
            "tags": self._tags,
            "result": self._result,
            "end": self._end,
            "cut_short": self._cut_short,
            "abandoned": self._abandoned,
        }
        writers[event.kind](event, Experiment(**event.experiment))

    # ---- the kinds of event ----

    def _start(self, event: Event, experiment: Experiment) -> None:
        parent = self.rows.parent(experiment, event.time_ms)
        self.rows.add_parameters(parent, event.payload["parameters"])
        self.rows.set_tags(parent, event.payload["tags"])
        self.client.update_run(parent, status="RUNNING", name=experiment.name)
        self._ledger.note(experiment, self.rows.collection(experiment.collection), parent, "")
        if event.stage:
            child = self.rows.child(experiment, event.stage, event.time_ms)
            self.rows.add_parameters(child, event.payload["stage_parameters"])
            self.rows.set_tags(child, event.payload["stage_tags"])
            self.client.update_run(child, status="RUNNING")

    def _metrics(self, event: Event, experiment: Experiment) -> None:
        numbers, step = event.payload["metrics"], event.payload["step"]
        run_id = self.rows.run(experiment, event.stage, event.time_ms)
        if not event.stage:
            self.rows.add_metrics(run_id, numbers, step, event.time_ms, replace=True)
            return
        if any(self.rows.contradicts(run_id, name, step, value) for name, value in numbers.items()):
            self.rows.rewind(experiment, event.stage, step)
            run_id = self.rows.run(experiment, event.stage, event.time_ms)
        self.rows.add_metrics(run_id, numbers, step, event.time_ms)
        if event.payload.get("mirror", True):
            mirrored = {f"{event.stage}/{name}": value for name, value in numbers.items()}
            self.rows.add_metrics(self.rows.parent(experiment, event.time_ms), mirrored, step, event.time_ms)

    def _tags(self, event: Event, experiment: Experiment) -> None:
        self.rows.set_tags(self.rows.run(experiment, event.stage, event.time_ms), event.payload["tags"])

    def _result(self, event: Event, experiment: Experiment) -> None:
        """Complete the row, unless it is: the evaluation, the model, and the stages that DVC took from its cache."""
        digest = event.payload["digest"]
        row = self._with_result(experiment, digest)
        if row is None:
            self._complete(event, experiment)
            row = self.client.get_run(self.rows.parent(experiment, event.time_ms))
        tags = row.data.tags
        found = replace(experiment, key=tags[KEY], name=row.info.run_name)
        self._ledger.note(found, row.info.experiment_id, row.info.run_id, digest)

    def _with_result(self, experiment: Experiment, digest: str) -> MlflowRun | None:
        """The finished row with this result: the experiment's own, or for a repro that opened none, any."""
        own = self.rows.find(experiment, WHOLE)
        if own is None and not experiment.is_dvcs:
            found = self.rows.search(experiment, {STAGE: WHOLE, RESULT: digest})
            own = next(iter(found), None)
        is_whole = own and own.data.tags.get(RESULT) == digest and own.info.status == "FINISHED"
        return own if is_whole else None

    def _complete(self, event: Event, experiment: Experiment) -> None:
        result, files = event.payload, list(event.files)
        parent = self.rows.parent(experiment, event.time_ms)
        self.client.update_run(parent, status="RUNNING")
        self.rows.add_parameters(parent, result["parameters"])
        self.rows.set_tags(parent, result["tags"])
        for stage in result["histories"]:
            self._complete_stage(event, experiment, stage)
        self.rows.add_metrics(parent, result["metrics"], 0, event.time_ms, replace=True)
        checkpoint = Path(files.pop(0)) if result["detector"] else None
        for path, folder in zip(files, result["folders"], strict=True):
            self.client.log_artifact(parent, path, folder)
        if checkpoint:
            self._add_detector(parent, experiment.name, checkpoint, result)
        self.rows.set_tags(parent, {RESULT: result["digest"], EVALUATED: "true"})
        self.rows.close(parent, "FINISHED", "", event.time_ms)
        self._compare(experiment)

    def _compare(self, experiment: Experiment) -> None:
        """Let MLflow's comparison show the parameters that differ between the rows there are now."""
        where = self.rows.collection(experiment.collection)
        rows = self.client.search_runs([where], f"tags.`{EVALUATED}` = 'true'", max_results=comparison.ROWS)
        view = comparison.view(comparison.differing([row.data.params for row in rows]))
        self.client.set_experiment_tag(where, comparison.TAG, view)

    def _complete_stage(self, event: Event, experiment: Experiment, stage: str) -> None:
        result = event.payload
        found = self.rows.find(experiment, stage)
        child, parent = self.rows.child(experiment, stage, event.time_ms), self.rows.parent(experiment, event.time_ms)
        self.rows.set_tags(child, result["stage_tags"][stage])
        self.rows.set_tags(parent, {f"{CHILD}.{stage}": child})
        if found and found.info.status == "FINISHED":
            return
        timing = result["timings"][stage]
        told = {name: str(timing[name]) for name in ("device", "precision") if name in timing}
        self.rows.add_parameters(child, result["stage_parameters"][stage])
        self.rows.set_tags(child, {**told, RESTORED: "true"})
        speed = {name: timing[name] for name in ("seconds", "images_per_second") if name in timing}
        points = [*result["histories"][stage], (0, speed)]
        for step, numbers in points:
            self.rows.add_metrics(child, numbers, step, event.time_ms)
            mirrored = {f"{stage}/{name}": value for name, value in numbers.items()}
            self.rows.add_metrics(parent, mirrored, step, event.time_ms)
        self.rows.close(child, "FINISHED", "", event.time_ms)

    def _add_detector(self, run_id: str, name: str, checkpoint: Path, result: Mapping[str, Any]) -> None:
        from fakeface.tracking.registry import RESULT as HOLDS
        from fakeface.tracking.registry import log_detector, register, registered

        if self.client.get_run(run_id).data.tags.get(DETECTOR, "").startswith(result["digest"]):
            return
        tags = {**result["detector"]["tags"], "experiment": name, HOLDS: result["digest"]}
        settings = {**result["detector"], "tags": tags}
        with alive.lock(open_private_folder(self.main) / "registry.lock"):
            version, model = registered(self.client, run_id, result["digest"])
        if not version:
            model = log_detector(self.client, run_id, checkpoint, settings)
            with alive.lock(open_private_folder(self.main) / "registry.lock"):
                version = register(self.client, run_id, model, settings)
        self.client.set_tag(run_id, DETECTOR, f"{result['digest']} {model} {version}")

    def _end(self, event: Event, experiment: Experiment) -> None:
        """A stage that failed fails the experiment; one that finished leaves it running until its result is there."""
        status, words = event.payload["status"], event.payload["last_words"]
        parent = self.rows.parent(experiment, event.time_ms)
        if event.stage:
            self.rows.close(self.rows.child(experiment, event.stage, event.time_ms), status, words, event.time_ms)
            words = f"{event.stage}: {words}" if words else ""
        evaluated = self.client.get_run(parent).data.tags.get(EVALUATED) == "true"
        if status == "FINISHED" and not evaluated:
            self.rows.say(parent, "")
            return
        self.rows.close(parent, status, words, event.time_ms)

    def _cut_short(self, event: Event, experiment: Experiment) -> None:
        """Who gave the row its result ended early: one that is whole all the same stays so, and none is made for it."""
        parent = self.rows.find(experiment, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self.rows.close(parent.info.run_id, "FAILED", event.payload["last_words"], event.time_ms)

    def _abandoned(self, event: Event, experiment: Experiment) -> None:
        """The command that ran the stages is gone: a row still open, with no failed stage, has all it will get."""
        parent = self.rows.find(experiment, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self.client.set_tag(parent.info.run_id, EVALUATED, "false")
            self.client.set_terminated(parent.info.run_id, "FINISHED", event.time_ms)


def quiet_mlflow() -> Any:
    """The module mlflow without telemetry, prints and tracebacks of its own: failures are told in our words, once."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    return mlflow
