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
from fakeface.tracking import alive, dvc_command, hardware, undelivered
from fakeface.tracking.identity import Experiment, identify
from fakeface.tracking.ledger import Ledger, Row
from fakeface.tracking.naming import clean_name, flat_parameters, last_words
from fakeface.tracking.recorder import Recorder, never_in_the_way
from fakeface.tracking.result import Result, digest, present
from fakeface.tracking.undelivered import Event

_SECONDS_BETWEEN_SAMPLES = 10.0
RESULT_WORK = "track"  # DVC's stage that completes the row


@dataclass
class Run:
    """One stage of an experiment while it runs, or (stage empty) its evaluation."""

    project_root: Path
    experiment: Experiment
    stage: str
    recorder: Recorder
    parameters: Mapping[str, str] = field(default_factory=dict)
    sign: alive.Sign | None = None
    sampler: hardware.Sampler | None = None
    last: str = ""
    began: float = field(default_factory=time.time)

    def log_epoch(self, epoch: int, numbers: Mapping[str, float], *, first: int = 1, of: int | None = None) -> None:
        """The curves' next points; `epoch` counts from 1. The experiment's row gets them as `stage1/loss` and so on.

        With `of`, the number of epochs, the run shows when it will end; `first` is where a resumed training began.
        """
        self.last = f"epoch {epoch} ({last_words(numbers)})"
        if self.sign:
            self.sign.say(last=self.last)
        self.log_metrics(numbers, step=epoch)
        if of:
            left = (time.time() - self.began) / (epoch - first + 1) * (of - epoch)
            self.set_tags({"progress": _progress(epoch, of, time.time() + left)})

    def log_metrics(self, numbers: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step."""
        flat = {clean_name(name): float(value) for name, value in numbers.items()}
        self._record("metrics", {"metrics": flat, "step": step})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run, for example the hash of the checkpoint it made."""
        if tags:
            self._record("tags", {"tags": {name: str(value) for name, value in tags.items()}})

    def complete(self, parameters: Mapping[str, Any], result: Result, tags: Mapping[str, str]) -> Row | None:
        """Give the experiment's row all it lacks of the result; a stage that DVC restored gets its own from its files.

        Returns the row, or None where the result waits for the store, or trouble was told.
        """
        row = None
        with never_in_the_way():
            row = self._complete(flat_parameters(parameters), result, tags)
        return row  # noqa: RET504 - an error inside is told and passed over

    def _complete(self, parameters: dict[str, str], result: Result, tags: Mapping[str, str]) -> Row | None:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "metrics.json"
            whole.write_text(json.dumps(result.metrics, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
            files = present([whole, *(self.project_root / path for path in result.files)])
            of_data = present(self.project_root / path for path in result.data_files)
            of_result = result.digest or digest(parameters, files)
            folders = ["evaluation"] * len(files) + ["data"] * len(of_data)
            whose = {"tags": dict(tags), "digest": of_result, "folders": folders}
            payload = result.as_payload(self.project_root, parameters) | whose
            checkpoint = (str((self.project_root / result.detector.checkpoint).resolve()),) if result.detector else ()
            if not self.recorder.waits("result", self.experiment.key, of_result):
                self._record("result", payload, (*checkpoint, *files, *of_data))
        return Ledger(self.recorder.main, self.recorder.store.uri).find(self.experiment, of_result)

    def take_place(self, environ: Mapping[str, str]) -> None:
        """Close the rows of the dead, and join the experiment of the `dvc` command above."""
        bury_the_dead(self.project_root, environ, recorder=self.recorder)
        folder = open_private_folder(self.recorder.main, "commands")
        self.experiment = dvc_command.pinned(self.experiment, folder, store=self.recorder.store.name)

    def show_sign(self, work: str) -> None:
        """Show that this run lives, for whoever finds it dead; `work` is what it does, to people."""
        who = alive.process()
        self.sign = alive.show(
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
        """Open the rows."""
        with never_in_the_way():
            payload = {
                "parameters": dict(self.parameters),
                "stage_parameters": flat_parameters(stage_parameters),
                "tags": dict(tags),
                "stage_tags": {**tags, **alive.process()},
            }
            self._record("start", payload)
            if self.stage:
                self.sampler = hardware.Sampler(self._sampled, _SECONDS_BETWEEN_SAMPLES)

    def end(self, status: str, words: str = "") -> None:
        """Close the row with FINISHED or FAILED."""
        if self.sampler:
            self.sampler.stop()
        self._record("end", {"status": status, "last_words": words})
        self._withdraw_sign()

    def end_result(self, words: str) -> None:
        """The result was given, or (with `words`) only a part of it: then a row that is still open is FAILED."""
        if words:
            self._record("cut_short", {"last_words": words})
        self._withdraw_sign()

    def _withdraw_sign(self) -> None:
        if self.sign:
            self.sign.close()

    def _sampled(self, numbers: Mapping[str, float], second: int) -> None:
        self._record("metrics", {"metrics": dict(numbers), "step": second, "mirror": False})

    def _record(self, kind: str, payload: dict[str, Any], files: tuple[str, ...] = ()) -> None:
        with never_in_the_way():
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
    """Track one stage: a child of the experiment's row, open while the block runs.

    `parameters` (nested, the whole params.yaml) go to the experiment's row, `stage_parameters` (what holds in this
    stage; by default the same) to the child. A stage that runs again in the same experiment goes on in the same child.
    The row ends FINISHED, or FAILED after an exception, SIGINT, SIGTERM or SIGHUP; after a SIGKILL the next command
    says so. Trouble with the tracking store is told in one sentence and never raised. Open it before slow imports, so
    that a process killed during them is missed.
    """
    run = _make_run(project_root, stage, parameters, environ)
    with raise_on_termination():
        try:
            with never_in_the_way():
                run.take_place(environ)
                run.show_sign(stage or "evaluation")
            run.start(parameters if stage_parameters is None else stage_parameters, tags or {})
            yield run
        except BaseException as error:
            words = _words(error, run.last)
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
    """Track the evaluation while it runs, on the experiment's own row, which `record_experiment` completes afterwards.

    Ends as `stage_run` does, but that the row of a whole evaluation stays open until then.
    """
    with stage_run(project_root, "", parameters, stage_parameters={}, tags=tags, environ=environ) as run:
        yield run


@contextmanager
def result_run(project_root: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Run]:
    """Read a result and `complete` its row while the block runs; the row of one that is cut short is FAILED.

    By whatever it is cut short, as with `stage_run`. A row that is whole already stays so, and one that has this result
    is left as it is; where `dvc repro` finds nothing to do, that may be the row of an earlier commit.
    """
    run = _make_run(project_root, "", {}, environ)
    with raise_on_termination():
        try:
            with never_in_the_way():
                run.take_place(environ)
                run.show_sign(RESULT_WORK)
            yield run
        except BaseException as error:
            run.end_result(_words(error, ""))
            raise
        run.end_result("")


def deliver(project_root: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Send what a tracking store that was away has missed, or has refused, and close the rows of the dead.

    Returns how many events still wait.
    """
    recorder = Recorder(project_root, environ)
    undelivered.take_back(recorder.folder, recorder.store.name)
    recorder.deliver()
    bury_the_dead(project_root, environ, recorder=recorder)
    return recorder.waiting()


def waiting_elsewhere(project_root: Path, environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """How many events wait for other stores than the present one, by name ("local", or an address)."""
    recorder = Recorder(project_root, environ)
    counts = undelivered.waiting(recorder.folder)
    return {store: count for store, count in sorted(counts.items()) if store != recorder.store.name}


def bury_the_dead(
    project_root: Path, environ: Mapping[str, str] = os.environ, *, recorder: Recorder | None = None
) -> list[str]:
    """Close the rows of runs that ended without a word (SIGKILL, power cut); returns a sentence for each."""
    main = find_main_folder(project_root, environ)
    recorder = recorder or Recorder(project_root, environ)
    store = {"store": recorder.store.name}
    sentences = []
    for last in alive.take_dead(open_private_folder(main, "alive"), store):
        after = f" after {last['last']}" if last.get("last") else ""
        words = f"Killed without a word{after} (process {last['pid']} on {last['host']})."
        kind = "cut_short" if last["work"] == RESULT_WORK else "end"
        recorder.record(Event(kind, last["experiment"], last["stage"], {"status": "FAILED", "last_words": words}))
        sentences.append(f"{last['experiment']['name']}, {last['work']}: {words}")
    for note in dvc_command.take_ended(open_private_folder(main, "commands"), store):
        recorder.record(Event("abandoned", note["experiment"]))
    return sentences


def bury_first(project_root: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Close the rows of the dead, for a stage that has no row; nothing slow is loaded where nobody left a sign."""
    with never_in_the_way():
        if next(open_private_folder(find_main_folder(project_root, environ), "alive").glob("*.jsonl"), None):
            bury_the_dead(project_root, environ)


def _make_run(project_root: Path, stage: str, parameters: Mapping[str, Any], environ: Mapping[str, str]) -> Run:
    recorder = Recorder(project_root, environ)
    return Run(project_root, identify(project_root, environ), stage, recorder, flat_parameters(parameters))


def _progress(epoch: int, of: int, end: float) -> str:
    return f"epoch {epoch} of {of}" + ("" if epoch >= of else time.strftime(", ends about %H:%M", time.localtime(end)))


def _words(error: BaseException, last: str) -> str:
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
