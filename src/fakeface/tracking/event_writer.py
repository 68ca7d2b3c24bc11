"""Events in, runs of MLflow out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.system.project import open_private_folder
from fakeface.tracking import chart_view, liveness, local_store
from fakeface.tracking.mlflow_runs import CHILD, DETECTOR, EVALUATED, KEY, RESULT, STAGE, WHOLE, MlflowRuns
from fakeface.tracking.outbox import Event
from fakeface.tracking.run_identity import RunIdentity
from fakeface.tracking.run_index import RunIndex

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
        self._ledger = RunIndex(main, uri)
        self.name = self._ledger.store
        self._runs: MlflowRuns | None = None

    @property
    def runs(self) -> MlflowRuns:
        """The runs of the connected store."""
        if self._runs is None:
            raise RuntimeError("connect() first")
        return self._runs

    @property
    def client(self) -> MlflowClient:
        """The connected client."""
        return self.runs.client

    def connect(self) -> None:
        """Open the store, made if need be; raises what MLflow raises where that fails."""
        if self._runs is not None:
            return
        mlflow = quiet_mlflow()
        with liveness.hold_lock(
            open_private_folder(self.main) / "store.lock"
        ):  # a first use of sqlite by two at once fails
            mlflow.set_tracking_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
            if self.uri == local_store.build_uri(self.main):
                local_store.repair_moved_artifacts(self.main)
        self._runs = MlflowRuns(client, self.main, self._ledger)

    def disconnect(self) -> None:
        """Forget the connection and every run found through it."""
        self._runs = None

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
        writers[event.kind](event, RunIdentity(**event.experiment))

    # ---- the kinds of event ----

    def _start(self, event: Event, experiment: RunIdentity) -> None:
        parent = self.runs.parent(experiment, event.time_ms)
        self.runs.add_parameters(parent, event.payload["parameters"])
        self.runs.set_tags(parent, event.payload["tags"])
        self.client.update_run(parent, status="RUNNING", name=experiment.name)
        self._ledger.note(experiment, self.runs.get_experiment_id(experiment.experiment_name), parent, "")
        if event.stage:
            child = self.runs.child(experiment, event.stage, event.time_ms)
            self.runs.add_parameters(child, event.payload["stage_parameters"])
            self.runs.set_tags(child, event.payload["stage_tags"])
            self.client.update_run(child, status="RUNNING")

    def _metrics(self, event: Event, experiment: RunIdentity) -> None:
        numbers, step = event.payload["metrics"], event.payload["step"]
        run_id = self.runs.run(experiment, event.stage, event.time_ms)
        if not event.stage:
            self.runs.add_metrics(run_id, numbers, step, event.time_ms, replace=True)
            return
        if any(self.runs.contradicts(run_id, name, step, value) for name, value in numbers.items()):
            self.runs.rewind(experiment, event.stage, step)
            run_id = self.runs.run(experiment, event.stage, event.time_ms)
        self.runs.add_metrics(run_id, numbers, step, event.time_ms)
        if event.payload.get("mirror", True):
            mirrored = {f"{event.stage}/{name}": value for name, value in numbers.items()}
            self.runs.add_metrics(self.runs.parent(experiment, event.time_ms), mirrored, step, event.time_ms)

    def _tags(self, event: Event, experiment: RunIdentity) -> None:
        self.runs.set_tags(self.runs.run(experiment, event.stage, event.time_ms), event.payload["tags"])

    def _result(self, event: Event, experiment: RunIdentity) -> None:
        """Complete the run, unless it is: the evaluation, the model, and the stages that DVC took from its cache."""
        digest = event.payload["digest"]
        row = self._with_result(experiment, digest)
        if row is None:
            self._complete(event, experiment)
            row = self.client.get_run(self.runs.parent(experiment, event.time_ms))
        tags = row.data.tags
        found = replace(experiment, key=tags[KEY], name=row.info.run_name)
        self._ledger.note(found, row.info.experiment_id, row.info.run_id, digest)

    def _with_result(self, experiment: RunIdentity, digest: str) -> MlflowRun | None:
        """The finished run with this result: the experiment's own, or for a repro that opened none, any."""
        own = self.runs.find(experiment, WHOLE)
        if own is None and not experiment.is_dvc_experiment:
            found = self.runs.search(experiment, {STAGE: WHOLE, RESULT: digest})
            own = next(iter(found), None)
        is_whole = own and own.data.tags.get(RESULT) == digest and own.info.status == "FINISHED"
        return own if is_whole else None

    def _complete(self, event: Event, experiment: RunIdentity) -> None:
        result, files = event.payload, list(event.files)
        parent = self.runs.parent(experiment, event.time_ms)
        self.client.update_run(parent, status="RUNNING")
        self.runs.add_parameters(parent, result["parameters"])
        self.runs.set_tags(parent, result["tags"])
        for stage in result["histories"]:
            self._complete_stage(event, experiment, stage)
        self.runs.add_metrics(parent, result["metrics"], 0, event.time_ms, replace=True)
        checkpoint = Path(files.pop(0)) if result["detector"] else None
        for path, folder in zip(files, result["folders"], strict=True):
            self.client.log_artifact(parent, path, folder)
        if checkpoint:
            self._add_detector(parent, experiment.name, checkpoint, result)
        self.runs.set_tags(parent, {RESULT: result["digest"], EVALUATED: "true"})
        self.runs.close(parent, "FINISHED", "", event.time_ms)
        self._compare(experiment)

    def _compare(self, experiment: RunIdentity) -> None:
        """Let MLflow's comparison show the parameters that differ between the runs there are now."""
        where = self.runs.get_experiment_id(experiment.experiment_name)
        rows = self.client.search_runs([where], f"tags.`{EVALUATED}` = 'true'", max_results=chart_view.ROWS)
        view = chart_view.build_view(chart_view.list_differing([row.data.params for row in rows]))
        self.client.set_experiment_tag(where, chart_view.TAG, view)

    def _complete_stage(self, event: Event, experiment: RunIdentity, stage: str) -> None:
        result = event.payload
        found = self.runs.find(experiment, stage)
        child, parent = self.runs.child(experiment, stage, event.time_ms), self.runs.parent(experiment, event.time_ms)
        self.runs.set_tags(child, result["stage_tags"][stage])
        self.runs.set_tags(parent, {f"{CHILD}.{stage}": child})
        if found and found.info.status == "FINISHED":
            return
        timing = result["timings"][stage]
        told = {name: str(timing[name]) for name in ("device", "precision") if name in timing}
        self.runs.add_parameters(child, result["stage_parameters"][stage])
        self.runs.set_tags(child, {**told, RESTORED: "true"})
        speed = {name: timing[name] for name in ("seconds", "images_per_second") if name in timing}
        points = [*result["histories"][stage], (0, speed)]
        for step, numbers in points:
            self.runs.add_metrics(child, numbers, step, event.time_ms)
            mirrored = {f"{stage}/{name}": value for name, value in numbers.items()}
            self.runs.add_metrics(parent, mirrored, step, event.time_ms)
        self.runs.close(child, "FINISHED", "", event.time_ms)

    def _add_detector(self, run_id: str, name: str, checkpoint: Path, result: Mapping[str, Any]) -> None:
        from fakeface.tracking.model_registry import RESULT as HOLDS
        from fakeface.tracking.model_registry import find_registered, log_model, register_model

        if self.client.get_run(run_id).data.tags.get(DETECTOR, "").startswith(result["digest"]):
            return
        tags = {**result["detector"]["tags"], "experiment": name, HOLDS: result["digest"]}
        settings = {**result["detector"], "tags": tags}
        with liveness.hold_lock(open_private_folder(self.main) / "registry.lock"):
            version, model = find_registered(self.client, run_id, result["digest"])
        if not version:
            model = log_model(self.client, run_id, checkpoint, settings)
            with liveness.hold_lock(open_private_folder(self.main) / "registry.lock"):
                version = register_model(self.client, run_id, model, settings)
        self.client.set_tag(run_id, DETECTOR, f"{result['digest']} {model} {version}")

    def _end(self, event: Event, experiment: RunIdentity) -> None:
        """A stage that failed fails the experiment; one that finished leaves it running until its result is there."""
        status, words = event.payload["status"], event.payload["last_words"]
        parent = self.runs.parent(experiment, event.time_ms)
        if event.stage:
            self.runs.close(self.runs.child(experiment, event.stage, event.time_ms), status, words, event.time_ms)
            words = f"{event.stage}: {words}" if words else ""
        evaluated = self.client.get_run(parent).data.tags.get(EVALUATED) == "true"
        if status == "FINISHED" and not evaluated:
            self.runs.say(parent, "")
            return
        self.runs.close(parent, status, words, event.time_ms)

    def _cut_short(self, event: Event, experiment: RunIdentity) -> None:
        """Who gave the run its result ended early: one that is whole all the same stays so, and none is made for it."""
        parent = self.runs.find(experiment, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self.runs.close(parent.info.run_id, "FAILED", event.payload["last_words"], event.time_ms)

    def _abandoned(self, event: Event, experiment: RunIdentity) -> None:
        """The command that ran the stages is gone: a run still open, with no failed stage, has all it will get."""
        parent = self.runs.find(experiment, WHOLE)
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
