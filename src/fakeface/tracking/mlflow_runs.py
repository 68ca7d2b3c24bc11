"""The runs of one tracking store: an experiment's and below it those of its stages, found or made, and written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.constants import STAGES
from fakeface.system.project import open_private_folder
from fakeface.tracking import chart_view, liveness, local_store
from fakeface.tracking.flatten import clean_name, is_same_value, shorten_value
from fakeface.tracking.run_identity import RunIdentity
from fakeface.tracking.run_index import RunIndex
from fakeface.tracking.store_uri import LOCAL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

KEY, CONTENT, STAGE, EVALUATED = "fakeface.key", "fakeface.content", "fakeface.stage", "fakeface.evaluated"
LAST_WORDS, RESULT = "fakeface.last_words", "fakeface.result"
CHILD, DETECTOR = "fakeface.child", "fakeface.detector"  # a stage's run; the result, MLflow's model and its version
WHOLE = "experiment"  # what the tag STAGE says of a parent
_NOTE, _PARENT, _COLOUR = "mlflow.note.content", "mlflow.parentRunId", "mlflow.runColor"
_RESULTS = ("loss", "accuracy")  # metrics that end so tell one training from another; a speed does not


class MlflowRuns:
    """The runs of a connected store; each is looked for once, and its points are read once."""

    def __init__(self, client: MlflowClient, main: Path, ledger: RunIndex) -> None:
        """`main` is the repository's main folder, `ledger` its notes about this store."""
        self.client = client
        self._main, self._ledger = main, ledger
        self._experiment_ids: dict[str, str] = {}
        self._runs: dict[tuple[str, str], str] = {}
        self._points: dict[str, dict[tuple[str, int], Metric]] = {}

    def run(self, experiment: RunIdentity, stage: str, time_ms: int) -> str:
        """The id of a stage's run, or (stage empty) of the experiment's; made if need be."""
        return self.child(experiment, stage, time_ms) if stage else self.parent(experiment, time_ms)

    def parent(self, experiment: RunIdentity, time_ms: int) -> str:
        """The id of the experiment's own run; made if need be, of one that was cut short if there is one."""
        identity = {KEY: experiment.key, CONTENT: experiment.content_key, STAGE: WHOLE}
        colour = chart_view.choose_colour(len(self._ledger.rows(experiment.experiment_name)))
        tags = {**experiment.tags, **identity, _NOTE: experiment.note, _COLOUR: colour}

        def adopt_or_create() -> str:
            return self._adopt(experiment, tags) or self._create(experiment, experiment.name, tags, time_ms)

        return self._find_or_create(experiment, WHOLE, adopt_or_create)

    def child(self, experiment: RunIdentity, stage: str, time_ms: int) -> str:
        """The id of a stage's run; made if need be."""
        parent = self.parent(experiment, time_ms)
        tags = {**experiment.tags, KEY: experiment.key, STAGE: stage, _PARENT: parent}
        return self._find_or_create(experiment, stage, lambda: self._create(experiment, stage, tags, time_ms))

    def _find_or_create(self, experiment: RunIdentity, stage: str, create: Callable[[], str]) -> str:
        place = (experiment.key, stage)
        if place not in self._runs:
            with liveness.hold_lock(open_private_folder(self._main) / "rows.lock"):
                found = self.find(experiment, stage)
                self._runs[place] = found.info.run_id if found else create()
        return self._runs[place]

    def find(self, experiment: RunIdentity, stage: str) -> MlflowRun | None:
        """The run of a stage, or of the experiment itself (WHOLE), if there is one."""
        return next(iter(self.search(experiment, {KEY: experiment.key, STAGE: stage})), None)

    def search(self, experiment: RunIdentity, tags: Mapping[str, str]) -> list[MlflowRun]:
        """Every run in the experiment's table that has these tags, the newest first."""
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self.client.search_runs([self.get_experiment_id(experiment.experiment_name)], condition))

    def _create(self, experiment: RunIdentity, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        tags = {key: _shorten_tag(value) for key, value in tags.items()}
        where = self.get_experiment_id(experiment.experiment_name)
        return str(self.client.create_run(where, start_time=time_ms, tags=tags, run_name=name).info.run_id)

    def _adopt(self, experiment: RunIdentity, tags: Mapping[str, str]) -> str:
        """Take over the run of the same work that was cut short under another name of DVC's choosing."""
        same_work = self.search(experiment, {CONTENT: experiment.content_key, STAGE: WHOLE})
        cut_short = [r for r in same_work if r.info.status != "RUNNING" and r.data.tags.get(EVALUATED) != "true"]
        if not cut_short:
            return ""
        old = cut_short[0]
        for run in self.search(experiment, {KEY: old.data.tags[KEY]}):
            self.set_tags(run.info.run_id, {**experiment.tags, KEY: experiment.key})
        self.set_tags(old.info.run_id, tags)
        return str(old.info.run_id)

    def rewind(self, experiment: RunIdentity, stage: str, step: int) -> None:
        """Take back what a stage said from `step` on, and all that came after it, because it now says something else.

        MLflow cannot delete points, so new runs take the places of the old, which stay in its list of deleted runs.
        """
        again = STAGES[STAGES.index(stage) :] if stage in STAGES else (stage,)

        def stays(name: str, at: int) -> bool:
            of_stage, curve, _ = name.partition("/")
            return bool(curve) and (of_stage not in again or (of_stage == stage and at < step))

        with liveness.hold_lock(open_private_folder(self._main) / "rows.lock"):
            children = {name: self.find(experiment, name) for name in (*STAGES, stage)}
            parent = self._replace(experiment, self.find(experiment, WHOLE), {}, stays)
            for name, child in children.items():
                if child and name == stage:
                    self._replace(
                        experiment, child, {_PARENT: parent}, lambda n, at: at < step or n.startswith("system/")
                    )
                elif child and name in again:
                    self.client.delete_run(child.info.run_id)
                elif child:
                    self.set_tags(child.info.run_id, {_PARENT: parent})
        self._runs.clear()
        self._points.clear()

    def _replace(
        self, experiment: RunIdentity, old: MlflowRun | None, tags: Mapping[str, str], stays: Callable[[str, int], bool]
    ) -> str:
        if old is None:
            return ""
        kept = [point for (name, at), point in self._recorded(old.info.run_id).items() if stays(name, at)]
        made_anew = (EVALUATED, RESULT, LAST_WORDS, "mlflow.runName", CHILD, DETECTOR)
        tags = {name: v for name, v in old.data.tags.items() if not name.startswith(made_anew)} | dict(tags)
        new = self._create(experiment, old.info.run_name, tags, old.info.start_time)
        self.client.delete_run(old.info.run_id)
        self.add_parameters(new, old.data.params)
        for part in _chunk(kept, 1000):
            self.client.log_batch(new, metrics=part)
        return new

    def get_experiment_id(self, name: str) -> str:
        """The id of the MLflow experiment."""
        if name not in self._experiment_ids:
            with liveness.hold_lock(open_private_folder(self._main) / "store.lock"):
                self._experiment_ids[name] = self._find_or_create_experiment(name)
        return self._experiment_ids[name]

    def _find_or_create_experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            place = local_store.build_artifact_uri(self._main) if self._ledger.store == LOCAL else None
            return str(self.client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage == "deleted":  # its name is taken for good, and nothing can be written to it
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    # ---- what a run holds ----

    def add_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        """MLflow keeps the first value of a parameter; one that differs later (another device) becomes a tag."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params if parameters else {}
        new = [Param(key, value) for key, value in parameters.items() if key not in known]
        for part in _chunk(new, 100):
            self.client.log_batch(run_id, params=part)
        changed = {key: value for key, value in parameters.items() if known.get(key, value) != value}
        self.set_tags(run_id, {f"later.{key}": value for key, value in changed.items()})

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Write tags, however many; a name that MLflow does not take is changed, and a value too long for it cut."""
        from mlflow.entities import RunTag

        entries = [RunTag(clean_name(key), _shorten_tag(value)) for key, value in tags.items()]
        for part in _chunk(entries, 100):
            self.client.log_batch(run_id, tags=part)

    def add_metrics(
        self, run_id: str, numbers: Mapping[str, float], step: int, time_ms: int, *, replace: bool = False
    ) -> None:
        """Points the run does not have yet: a stage that starts again says the same again. `replace`: a later value."""
        from mlflow.entities import Metric

        recorded = self._recorded(run_id)
        new = {}
        for name, value in numbers.items():
            point = recorded.get((name, step))
            if point is None or (replace and not is_same_value(point.value, value)):
                new[name, step] = Metric(name, value, time_ms, step)
        for part in _chunk(new.values(), 1000):
            self.client.log_batch(run_id, metrics=part)
        recorded |= new

    def contradicts(self, run_id: str, name: str, step: int, value: float) -> bool:
        """Whether a curve of training results has another value at this step already."""
        point = self._recorded(run_id).get((name, step))
        return point is not None and name.endswith(_RESULTS) and not is_same_value(point.value, value)

    def _recorded(self, run_id: str) -> dict[tuple[str, int], Metric]:
        """The latest point of each metric at each step."""
        if run_id not in self._points:
            names = self.client.get_run(run_id).data.metrics
            points = [point for name in names for point in self.client.get_metric_history(run_id, name)]
            points.sort(key=lambda point: point.timestamp)
            self._points[run_id] = {(point.key, point.step): point for point in points}
        return self._points[run_id]

    def close(self, run_id: str, status: str, words: str, time_ms: int) -> None:
        """End a run with a status of MLflow and its termination message, empty if it came through."""
        self.say(run_id, words)
        self.client.set_terminated(run_id, status, time_ms)

    def say(self, run_id: str, words: str) -> None:
        """Put the last words at the head of the description, or take them away when the run came through after all."""
        tags = self.client.get_run(run_id).data.tags
        if words == tags.get(LAST_WORDS, ""):
            return
        note = tags.get(_NOTE, "").split("\n\n---\n\n")[-1]
        self.client.set_tag(run_id, LAST_WORDS, _shorten_tag(words))
        self.client.set_tag(
            run_id, _NOTE, _shorten_tag(f"**Ended early.** {words}\n\n---\n\n{note}" if words else note)
        )


def _shorten_tag(value: str) -> str:
    return value if len(value) <= 5000 else shorten_value(value)  # characters: what MLflow before 2.10 takes


def _chunk(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))
