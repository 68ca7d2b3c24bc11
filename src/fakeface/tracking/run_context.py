"""Runs of stages and experiments, as the scripts of the pipeline use them."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakeface.system.errors import UserError
from fakeface.system.project import find_main_folder, open_private_folder
from fakeface.system.signals import SILENT_SIGNALS, raise_on_termination
from fakeface.tracking import dvc_session, liveness, outbox, system_metrics
from fakeface.tracking.flatten import clean_name, flatten_parameters, format_numbers
from fakeface.tracking.outbox import Event
from fakeface.tracking.recorder import Recorder, suppress_tracking_errors
from fakeface.tracking.result_files import Result, compute_digest, list_present
from fakeface.tracking.run_identity import RunIdentity, identify_run
from fakeface.tracking.run_index import IndexedRun, RunIndex

_SECONDS_BETWEEN_SAMPLES = 10.0
RESULT_WORK = "track"  # DVC's stage that completes the run


@dataclass
class Run:
    """One stage of an experiment while it runs, or (stage empty) its evaluation."""

    project_root: Path
    experiment: RunIdentity
    stage: str
    recorder: Recorder
    parameters: Mapping[str, str] = field(default_factory=dict)
    sign: liveness.Heartbeat | None = None
    sampler: system_metrics.Sampler | None = None
    last: str = ""
    began: float = field(default_factory=time.time)

    def log_epoch(self, epoch: int, numbers: Mapping[str, float], *, first: int = 1, of: int | None = None) -> None:
        """The curves' next points; `epoch` counts from 1. The experiment's run gets them as `stage1/loss` and so on.

        With `of`, the number of epochs, the run shows when it will end; `first` is where a resumed training began.
        """
        self.last = f"epoch {epoch} ({format_numbers(numbers)})"
        if self.sign:
            self.sign.say(last=self.last)
        self.log_metrics(numbers, step=epoch)
        if of:
            left = (time.time() - self.began) / (epoch - first + 1) * (of - epoch)
            self.set_tags({"progress": _describe_progress(epoch, of, time.time() + left)})

    def log_metrics(self, numbers: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step."""
        flat = {clean_name(name): float(value) for name, value in numbers.items()}
        self._record("metrics", {"metrics": flat, "step": step})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, for example the hash of the checkpoint it made."""
        if tags:
            self._record("tags", {"tags": {name: str(value) for name, value in tags.items()}})

    def complete(self, parameters: Mapping[str, Any], result: Result, tags: Mapping[str, str]) -> IndexedRun | None:
        """Give the experiment's run all it lacks of the result; a stage that DVC restored gets its own from its files.

        Returns the run, or None where the result waits for the store, or trouble was told.
        """
        row = None
        with suppress_tracking_errors():
            row = self._complete(flatten_parameters(parameters), result, tags)
        return row  # noqa: RET504 - an error inside is told and passed over

    def _complete(self, parameters: dict[str, str], result: Result, tags: Mapping[str, str]) -> IndexedRun | None:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "metrics.json"
            whole.write_text(json.dumps(result.metrics, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
            files = list_present([whole, *(self.project_root / path for path in result.files)])
            of_data = list_present(self.project_root / path for path in result.data_files)
            of_result = result.digest or compute_digest(parameters, files)
            folders = ["evaluation"] * len(files) + ["data"] * len(of_data)
            whose = {"tags": dict(tags), "digest": of_result, "folders": folders}
            payload = result.as_payload(self.project_root, parameters) | whose
            checkpoint = (str((self.project_root / result.detector.checkpoint).resolve()),) if result.detector else ()
            if not self.recorder.waits("result", self.experiment.key, of_result):
                self._record("result", payload, (*checkpoint, *files, *of_data))
        return RunIndex(self.recorder.main, self.recorder.store.uri).find(self.experiment, of_result)

    def join_session(self, environ: Mapping[str, str]) -> None:
        """Close stale runs, and join the experiment of the `dvc` command above."""
        fail_stale_runs(self.project_root, environ, recorder=self.recorder)
        folder = open_private_folder(self.recorder.main, "commands")
        self.experiment = dvc_session.pin_identity(self.experiment, folder, store=self.recorder.store.name)

    def start_heartbeat(self, work: str) -> None:
        """Show that this run lives, for whoever finds it dead; `work` is what it does, to people."""
        who = liveness.describe_process()
        self.sign = liveness.start_heartbeat(
            open_private_folder(self.recorder.main, "alive"),
            f"{self.experiment.key}-{work}",
            experiment=self.experiment.as_json(),
            stage=self.stage,
            work=work,
            store=self.recorder.store.name,
            pid=who["process.id"],
            host=who["process.host"],
        )

    def start(self, stage_parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the runs."""
        with suppress_tracking_errors():
            payload = {
                "parameters": dict(self.parameters),
                "stage_parameters": flatten_parameters(stage_parameters),
                "tags": dict(tags),
                "stage_tags": {**tags, **liveness.describe_process()},
            }
            self._record("start", payload)
            if self.stage:
                self.sampler = system_metrics.Sampler(self._sampled, _SECONDS_BETWEEN_SAMPLES)

    def end(self, status: str, words: str = "") -> None:
        """Close the run with FINISHED or FAILED."""
        if self.sampler:
            self.sampler.stop()
        self._record("end", {"status": status, "last_words": words})
        self._stop_heartbeat()

    def finish_result(self, words: str) -> None:
        """The result was given, or (with `words`) only a part of it: then a run that is still open is FAILED."""
        if words:
            self._record("cut_short", {"last_words": words})
        self._stop_heartbeat()

    def _stop_heartbeat(self) -> None:
        if self.sign:
            self.sign.close()

    def _sampled(self, numbers: Mapping[str, float], second: int) -> None:
        self._record("metrics", {"metrics": dict(numbers), "step": second, "mirror": False})

    def _record(self, kind: str, payload: dict[str, Any], files: tuple[str, ...] = ()) -> None:
        with suppress_tracking_errors():
            event = Event(kind, self.experiment.as_json(), self.stage, payload, files)
            self.recorder.record(event, last=kind == "end")


@contextmanager
def stage_run(
    project_root: Path,
    stage: str,
    parameters: Mapping[str, Any],
    *,
    stage_parameters: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Run]:
    """Track one stage: a child of the experiment's run, open while the block runs.

    `parameters` (nested, the whole params.yaml) go to the experiment's run, `stage_parameters` (what holds in this
    stage; by default the same) to the child. A stage that runs again in the same experiment goes on in the same child.
    The run ends FINISHED, or FAILED after an exception, SIGINT, SIGTERM or SIGHUP; after a SIGKILL the next command
    says so. Trouble with the tracking store is told in one sentence and never raised. Open it before slow imports, so
    that a process killed during them is missed.
    """
    run = _make_run(project_root, stage, parameters, environ)
    with raise_on_termination():
        try:
            with suppress_tracking_errors():
                run.join_session(environ)
                run.start_heartbeat(stage or "evaluation")
            run.start(parameters if stage_parameters is None else stage_parameters, tags or {})
            yield run
        except BaseException as error:
            words = _describe_end(error, run.last)
            run.end("FAILED" if words else "FINISHED", words)
            raise
        run.end("FINISHED")


@contextmanager
def evaluation_run(
    project_root: Path,
    parameters: Mapping[str, Any],
    *,
    tags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Run]:
    """Track the evaluation while it runs, on the experiment's own run, which `record_experiment` completes afterwards.

    Ends as `stage_run` does, but that the run of a whole evaluation stays open until then.
    """
    with stage_run(project_root, "", parameters, stage_parameters={}, tags=tags, environ=environ) as run:
        yield run


@contextmanager
def result_run(project_root: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Run]:
    """Read a result and `complete` its run while the block runs; the run of one that is cut short is FAILED.

    By whatever it is cut short, as with `stage_run`. A run that is whole already stays so, and one that has this result
    is left as it is; where `dvc repro` finds nothing to do, that may be the run of an earlier commit.
    """
    run = _make_run(project_root, "", {}, environ)
    with raise_on_termination():
        try:
            with suppress_tracking_errors():
                run.join_session(environ)
                run.start_heartbeat(RESULT_WORK)
            yield run
        except BaseException as error:
            run.finish_result(_describe_end(error, ""))
            raise
        run.finish_result("")


def deliver(project_root: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Send what a tracking store that was away has missed, or has refused, and close stale runs.

    Returns how many events still wait.
    """
    recorder = Recorder(project_root, environ)
    outbox.requeue(recorder.folder, recorder.store.name)
    recorder.deliver()
    fail_stale_runs(project_root, environ, recorder=recorder)
    return recorder.waiting()


def count_pending_elsewhere(project_root: Path, environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """How many events wait for other stores than the present one, by name ("local", or an address)."""
    recorder = Recorder(project_root, environ)
    counts = outbox.count_pending(recorder.folder)
    return {store: count for store, count in sorted(counts.items()) if store != recorder.store.name}


def fail_stale_runs(
    project_root: Path, environ: Mapping[str, str] = os.environ, *, recorder: Recorder | None = None
) -> list[str]:
    """Close the runs of runs that ended without a message (SIGKILL, power cut); returns a sentence for each."""
    main = find_main_folder(project_root, environ)
    recorder = recorder or Recorder(project_root, environ)
    store = {"store": recorder.store.name}
    sentences = []
    for last in liveness.pop_stale(open_private_folder(main, "alive"), store):
        after = f" after {last['last']}" if last.get("last") else ""
        words = f"Killed without a word{after} (process {last['pid']} on {last['host']})."
        kind = "cut_short" if last["work"] == RESULT_WORK else "end"
        recorder.record(Event(kind, last["experiment"], last["stage"], {"status": "FAILED", "last_words": words}))
        sentences.append(f"{last['experiment']['name']}, {last['work']}: {words}")
    for note in dvc_session.pop_ended(open_private_folder(main, "commands"), store):
        recorder.record(Event("abandoned", note["experiment"]))
    return sentences


def fail_stale_runs_if_any(project_root: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Close stale runs, for a stage that has no run; nothing slow is loaded where nobody left a sign."""
    with suppress_tracking_errors():
        if next(open_private_folder(find_main_folder(project_root, environ), "alive").glob("*.jsonl"), None):
            fail_stale_runs(project_root, environ)


def _make_run(project_root: Path, stage: str, parameters: Mapping[str, Any], environ: Mapping[str, str]) -> Run:
    recorder = Recorder(project_root, environ)
    return Run(project_root, identify_run(project_root, environ), stage, recorder, flatten_parameters(parameters))


def _describe_progress(epoch: int, of: int, end: float) -> str:
    return f"epoch {epoch} of {of}" + ("" if epoch >= of else time.strftime(", ends about %H:%M", time.localtime(end)))


def _describe_end(error: BaseException, last: str) -> str:
    """What ended the run; empty for a normal exit."""
    after = f" after {last}" if last else ""
    if isinstance(error, SystemExit):
        if not error.code:
            return ""
        signals = {str(128 + number): f"Stopped by {number.name}" for number in SILENT_SIGNALS}
        return f"{signals.get(str(error.code), f'Exit: {error.code}')}{after}."
    if isinstance(error, KeyboardInterrupt):
        return f"Stopped by SIGINT{after}."
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}{after}"
