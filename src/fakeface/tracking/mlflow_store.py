"""Events in, rows of MLflow out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface import STAGES
from fakeface.tracking import alive, comparison, local_files
from fakeface.tracking.identity import Experiment, private_folder
from fakeface.tracking.ledger import Ledger
from fakeface.tracking.naming import clean_name, same, short_value
from fakeface.tracking.undelivered import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

KEY, CONTENT, STAGE, EVALUATED = "fakeface.key", "fakeface.content", "fakeface.stage", "fakeface.evaluated"
LAST_WORDS, RESTORED, RESULT = "fakeface.last_words", "fakeface.restored_from_cache", "fakeface.result"
CHILD, DETECTOR = "fakeface.child", "fakeface.detector"  # a stage's row; the result, MLflow's model and its version
WHOLE = "experiment"  # what the tag STAGE says of a parent
_NOTE, _PARENT, _COLOUR = "mlflow.note.content", "mlflow.parentRunId", "mlflow.runColor"
_RESULTS = ("loss", "accuracy")  # metrics that end so tell one training from another; a speed does not
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
        self._client: MlflowClient | None = None
        self._collections: dict[str, str] = {}
        self._runs: dict[tuple[str, str], str] = {}
        self._points: dict[str, dict[tuple[str, int], Metric]] = {}

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
        mlflow = quiet_mlflow()
        with alive.lock(private_folder(self.main) / "store.lock"):  # a first use of sqlite by two at once fails
            mlflow.set_tracking_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
            if self.uri == local_files.uri(self.main):
                local_files.follow_moved_folder(self.main)
        self._client = client

    def disconnect(self) -> None:
        """Forget the connection and every run found through it."""
        self._client = None
        self._collections.clear()
        self._runs.clear()
        self._points.clear()

    def record(self, event: Event) -> None:
        """Write one event; writing it twice leaves the same."""
        writers = {
            "start": self._start,
            "metrics": self._metrics,
            "files": self._files,
            "tags": self._tags,
            "result": self._result,
            "end": self._end,
            "cut_short": self._cut_short,
            "abandoned": self._abandoned,
        }
        writers[event.kind](event, Experiment(**event.experiment))

    # ---- the kinds of event ----

    def _start(self, event: Event, experiment: Experiment) -> None:
        parent = self._parent(experiment, event.time_ms)
        self._add_parameters(parent, event.payload["parameters"])
        self._set_tags(parent, event.payload["tags"])
        self.client.update_run(parent, status="RUNNING", name=experiment.name)
        self._ledger.note(experiment, self._collection(experiment.collection), parent, "")
        if event.stage:
            child = self._child(experiment, event.stage, event.time_ms)
            self._add_parameters(child, event.payload["stage_parameters"])
            self._set_tags(child, event.payload["stage_tags"])
            self.client.update_run(child, status="RUNNING")

    def _metrics(self, event: Event, experiment: Experiment) -> None:
        numbers, step = event.payload["metrics"], event.payload["step"]
        run_id = self._run(experiment, event.stage, event.time_ms)
        if not event.stage:
            self._add_metrics(run_id, numbers, step, event.time_ms, replace=True)
            return
        if any(self._contradicts(run_id, name, step, value) for name, value in numbers.items()):
            self._rewind(experiment, event.stage, step)
            run_id = self._run(experiment, event.stage, event.time_ms)
        self._add_metrics(run_id, numbers, step, event.time_ms)
        if event.payload.get("mirror", True):
            mirrored = {f"{event.stage}/{name}": value for name, value in numbers.items()}
            self._add_metrics(self._parent(experiment, event.time_ms), mirrored, step, event.time_ms)

    def _files(self, event: Event, experiment: Experiment) -> None:
        run_id = self._run(experiment, event.stage, event.time_ms)
        for path in event.files:
            self.client.log_artifact(run_id, path, event.payload["folder"] or None)

    def _tags(self, event: Event, experiment: Experiment) -> None:
        self._set_tags(self._run(experiment, event.stage, event.time_ms), event.payload["tags"])

    def _result(self, event: Event, experiment: Experiment) -> None:
        """Complete the row, unless it is: the evaluation, the model, and the stages that DVC took from its cache."""
        digest = event.payload["digest"]
        row = self._with_result(experiment, digest)
        if row is None:
            self._complete(event, experiment)
            row = self.client.get_run(self._parent(experiment, event.time_ms))
        tags = row.data.tags
        found = replace(experiment, key=tags[KEY], name=row.info.run_name)
        self._ledger.note(found, row.info.experiment_id, row.info.run_id, digest)

    def _with_result(self, experiment: Experiment, digest: str) -> MlflowRun | None:
        """The finished row with this result: the experiment's own, or for a repro that opened none, any."""
        own = self._find(experiment, WHOLE)
        if own is None and not experiment.is_dvcs:
            found = self._search(experiment, {STAGE: WHOLE, RESULT: digest})
            own = next(iter(found), None)
        is_whole = own and own.data.tags.get(RESULT) == digest and own.info.status == "FINISHED"
        return own if is_whole else None

    def _complete(self, event: Event, experiment: Experiment) -> None:
        result, files = event.payload, list(event.files)
        parent = self._parent(experiment, event.time_ms)
        self.client.update_run(parent, status="RUNNING")
        self._add_parameters(parent, result["parameters"])
        self._set_tags(parent, result["tags"])
        for stage in result["histories"]:
            self._complete_stage(event, experiment, stage)
        self._add_metrics(parent, result["metrics"], 0, event.time_ms, replace=True)
        checkpoint = Path(files.pop(0)) if result["detector"] else None
        for path, folder in zip(files, result["folders"], strict=True):
            self.client.log_artifact(parent, path, folder)
        if checkpoint:
            self._add_detector(parent, experiment.name, checkpoint, result)
        self._set_tags(parent, {RESULT: result["digest"], EVALUATED: "true"})
        self._close(parent, "FINISHED", "", event.time_ms)
        self._compare(experiment)

    def _compare(self, experiment: Experiment) -> None:
        """Let MLflow's comparison show the parameters that differ between the rows there are now."""
        where = self._collection(experiment.collection)
        rows = self.client.search_runs([where], f"tags.`{EVALUATED}` = 'true'", max_results=comparison.ROWS)
        view = comparison.view(comparison.differing([row.data.params for row in rows]))
        self.client.set_experiment_tag(where, comparison.TAG, view)

    def _complete_stage(self, event: Event, experiment: Experiment, stage: str) -> None:
        result = event.payload
        found = self._find(experiment, stage)
        child, parent = self._child(experiment, stage, event.time_ms), self._parent(experiment, event.time_ms)
        self._set_tags(child, result["stage_tags"][stage])
        self._set_tags(parent, {f"{CHILD}.{stage}": child})
        if found and found.info.status == "FINISHED":
            return
        timing = result["timings"][stage]
        told = {name: str(timing[name]) for name in ("device", "precision") if name in timing}
        self._add_parameters(child, result["stage_parameters"][stage])
        self._set_tags(child, {**told, RESTORED: "true"})
        speed = {name: timing[name] for name in ("seconds", "images_per_second") if name in timing}
        points = [*result["histories"][stage], (0, speed)]
        for step, numbers in points:
            self._add_metrics(child, numbers, step, event.time_ms)
            mirrored = {f"{stage}/{name}": value for name, value in numbers.items()}
            self._add_metrics(parent, mirrored, step, event.time_ms)
        self._close(child, "FINISHED", "", event.time_ms)

    def _add_detector(self, run_id: str, name: str, checkpoint: Path, result: Mapping[str, Any]) -> None:
        from fakeface.tracking.registry import RESULT as HOLDS
        from fakeface.tracking.registry import log_detector, register, registered

        if self.client.get_run(run_id).data.tags.get(DETECTOR, "").startswith(result["digest"]):
            return
        tags = {**result["detector"]["tags"], "experiment": name, HOLDS: result["digest"]}
        settings = {**result["detector"], "tags": tags}
        with alive.lock(private_folder(self.main) / "registry.lock"):
            version, model = registered(self.client, run_id, result["digest"])
        if not version:
            model = log_detector(self.client, run_id, checkpoint, settings)
            with alive.lock(private_folder(self.main) / "registry.lock"):
                version = register(self.client, run_id, model, settings)
        self.client.set_tag(run_id, DETECTOR, f"{result['digest']} {model} {version}")

    def _end(self, event: Event, experiment: Experiment) -> None:
        """A stage that failed fails the experiment; one that finished leaves it running until its result is there."""
        status, words = event.payload["status"], event.payload["last_words"]
        parent = self._parent(experiment, event.time_ms)
        if event.stage:
            self._close(self._child(experiment, event.stage, event.time_ms), status, words, event.time_ms)
            words = f"{event.stage}: {words}" if words else ""
        evaluated = self.client.get_run(parent).data.tags.get(EVALUATED) == "true"
        if status == "FINISHED" and not evaluated:
            self._say(parent, "")
            return
        self._close(parent, status, words, event.time_ms)

    def _cut_short(self, event: Event, experiment: Experiment) -> None:
        """Who gave the row its result ended early: one that is whole all the same stays so, and none is made for it."""
        parent = self._find(experiment, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self._close(parent.info.run_id, "FAILED", event.payload["last_words"], event.time_ms)

    def _abandoned(self, event: Event, experiment: Experiment) -> None:
        """The command that ran the stages is gone: a row still open, with no failed stage, has all it will get."""
        parent = self._find(experiment, WHOLE)
        if parent and parent.info.status == "RUNNING":
            self.client.set_tag(parent.info.run_id, EVALUATED, "false")
            self.client.set_terminated(parent.info.run_id, "FINISHED", event.time_ms)

    # ---- rows ----

    def _run(self, experiment: Experiment, stage: str, time_ms: int) -> str:
        return self._child(experiment, stage, time_ms) if stage else self._parent(experiment, time_ms)

    def _parent(self, experiment: Experiment, time_ms: int) -> str:
        identity = {KEY: experiment.key, CONTENT: experiment.content_key, STAGE: WHOLE}
        colour = comparison.colour(len(self._ledger.rows(experiment.collection)))
        tags = {**experiment.tags, **identity, _NOTE: experiment.note, _COLOUR: colour}

        def adopt_or_create() -> str:
            return self._adopt(experiment, tags) or self._create(experiment, experiment.name, tags, time_ms)

        return self._find_or_create(experiment, WHOLE, adopt_or_create)

    def _child(self, experiment: Experiment, stage: str, time_ms: int) -> str:
        parent = self._parent(experiment, time_ms)
        tags = {**experiment.tags, KEY: experiment.key, STAGE: stage, _PARENT: parent}
        return self._find_or_create(experiment, stage, lambda: self._create(experiment, stage, tags, time_ms))

    def _find_or_create(self, experiment: Experiment, stage: str, create: Callable[[], str]) -> str:
        place = (experiment.key, stage)
        if place not in self._runs:
            with alive.lock(private_folder(self.main) / "rows.lock"):
                found = self._find(experiment, stage)
                self._runs[place] = found.info.run_id if found else create()
        return self._runs[place]

    def _find(self, experiment: Experiment, stage: str) -> MlflowRun | None:
        return next(iter(self._search(experiment, {KEY: experiment.key, STAGE: stage})), None)

    def _search(self, experiment: Experiment, tags: Mapping[str, str]) -> list[MlflowRun]:
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self.client.search_runs([self._collection(experiment.collection)], condition))

    def _create(self, experiment: Experiment, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        tags = {key: _tag(value) for key, value in tags.items()}
        where = self._collection(experiment.collection)
        return str(self.client.create_run(where, start_time=time_ms, tags=tags, run_name=name).info.run_id)

    def _adopt(self, experiment: Experiment, tags: Mapping[str, str]) -> str:
        """Take over the row of the same work that was cut short under another name of DVC's choosing."""
        same_work = self._search(experiment, {CONTENT: experiment.content_key, STAGE: WHOLE})
        cut_short = [r for r in same_work if r.info.status != "RUNNING" and r.data.tags.get(EVALUATED) != "true"]
        if not cut_short:
            return ""
        old = cut_short[0]
        for run in self._search(experiment, {KEY: old.data.tags[KEY]}):
            self._set_tags(run.info.run_id, {**experiment.tags, KEY: experiment.key})
        self._set_tags(old.info.run_id, tags)
        return str(old.info.run_id)

    def _rewind(self, experiment: Experiment, stage: str, step: int) -> None:
        """Take back what a stage said from `step` on, and all that came after it, because it now says something else.

        MLflow cannot delete points, so new rows take the places of the old, which stay in its list of deleted runs.
        """
        again = STAGES[STAGES.index(stage) :] if stage in STAGES else (stage,)

        def stays(name: str, at: int) -> bool:
            of_stage, curve, _ = name.partition("/")
            return bool(curve) and (of_stage not in again or (of_stage == stage and at < step))

        with alive.lock(private_folder(self.main) / "rows.lock"):
            children = {name: self._find(experiment, name) for name in (*STAGES, stage)}
            parent = self._replace(experiment, self._find(experiment, WHOLE), {}, stays)
            for name, child in children.items():
                if child and name == stage:
                    self._replace(
                        experiment, child, {_PARENT: parent}, lambda n, at: at < step or n.startswith("system/")
                    )
                elif child and name in again:
                    self.client.delete_run(child.info.run_id)
                elif child:
                    self._set_tags(child.info.run_id, {_PARENT: parent})
        self._runs.clear()
        self._points.clear()

    def _replace(
        self, experiment: Experiment, old: MlflowRun | None, tags: Mapping[str, str], stays: Callable[[str, int], bool]
    ) -> str:
        if old is None:
            return ""
        kept = [point for (name, at), point in self._recorded(old.info.run_id).items() if stays(name, at)]
        made_anew = (EVALUATED, RESULT, LAST_WORDS, "mlflow.runName", CHILD, DETECTOR)
        tags = {name: v for name, v in old.data.tags.items() if not name.startswith(made_anew)} | dict(tags)
        new = self._create(experiment, old.info.run_name, tags, old.info.start_time)
        self.client.delete_run(old.info.run_id)
        self._add_parameters(new, old.data.params)
        for part in _parts(kept, 1000):
            self.client.log_batch(new, metrics=part)
        return new

    # ---- what a row holds ----

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

    def _add_metrics(
        self, run_id: str, numbers: Mapping[str, float], step: int, time_ms: int, *, replace: bool = False
    ) -> None:
        """Points the row does not have yet: a stage that starts again says the same again. `replace`: a later value."""
        from mlflow.entities import Metric

        recorded = self._recorded(run_id)
        new = {}
        for name, value in numbers.items():
            point = recorded.get((name, step))
            if point is None or (replace and not same(point.value, value)):
                new[name, step] = Metric(name, value, time_ms, step)
        for part in _parts(new.values(), 1000):
            self.client.log_batch(run_id, metrics=part)
        recorded |= new

    def _contradicts(self, run_id: str, name: str, step: int, value: float) -> bool:
        point = self._recorded(run_id).get((name, step))
        return point is not None and name.endswith(_RESULTS) and not same(point.value, value)

    def _recorded(self, run_id: str) -> dict[tuple[str, int], Metric]:
        """The latest point of each metric at each step."""
        if run_id not in self._points:
            names = self.client.get_run(run_id).data.metrics
            points = [point for name in names for point in self.client.get_metric_history(run_id, name)]
            points.sort(key=lambda point: point.timestamp)
            self._points[run_id] = {(point.key, point.step): point for point in points}
        return self._points[run_id]

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

    def _collection(self, name: str) -> str:
        """The id of the table of rows that MLflow calls an experiment."""
        if name not in self._collections:
            with alive.lock(private_folder(self.main) / "store.lock"):
                self._collections[name] = self._find_or_create_collection(name)
        return self._collections[name]

    def _find_or_create_collection(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            local = self.uri == local_files.uri(self.main)
            place = local_files.artifacts(self.main) if local else None
            return str(self.client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage == "deleted":  # its name is taken for good, and nothing can be written to it
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def quiet_mlflow() -> Any:
    """The module mlflow without telemetry, prints and tracebacks of its own: failures are told in our words, once."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    return mlflow


def _tag(value: str) -> str:
    return value if len(value) <= 5000 else short_value(value)  # characters: what MLflow before 2.10 takes


def _parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))
