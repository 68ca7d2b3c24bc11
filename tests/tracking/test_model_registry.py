"""The model of a result in the registry."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fakeface import tracking
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from tests.support.tracked_project import (
    NOTHING,
    PARAMETERS,
    SOURCE,
    complete,
    list_runs,
    make_result,
    open_client,
    write_histories,
)


def _register(project: Path) -> None:
    """A model with the scores of two held-out faces, both called rightly."""
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    (run,) = list_runs(project).values()
    table = project / "scores.csv"
    table.write_text("set,path,source,label,stage3\nheldout,a,cam,real,0.1\nheldout,b,gan,fake,0.9\n")
    client = open_client(project)
    client.log_artifact(run.info.run_id, table, "evaluation")
    client.create_registered_model("fakeface")
    tags = {"heldout": "these", "threshold": "0.5", "experiment": run.info.run_name}
    client.create_model_version("fakeface", run.info.artifact_uri, run.info.run_id, tags=tags)
    client.set_registered_model_alias("fakeface", "candidate", "1")


def test_promote_says_in_a_sentence_that_the_store_failed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)  # MLflow makes folders of a sqlite address where it is
    shutil.copy(SOURCE.parent / "params.yaml", project / "params.yaml")
    _register(project)
    only_read = f"sqlite:///{(project / 'mlflow.db').as_uri()}?mode=ro&uri=true"
    with pytest.raises(UserError, match=r"mlflow\.db.* cannot be written to"):
        tracking.promote(project, environ={"MLFLOW_TRACKING_URI": only_read})
    assert tracking.promote(project, environ=NOTHING).promoted


def test_kill_after_registration_makes_no_second_version(project: Path) -> None:
    write_histories(project, *STAGES)
    (project / "stage3.h5").write_bytes(b"a checkpoint")
    detector = tracking.Detector(project / "stage3.h5", 32, "# A card", {"threshold": "0.5"}, ("numpy==1.26.4",))
    result = replace(make_result(project), detector=detector)
    row = complete(project, NOTHING, result=result)
    assert row is not None
    client = open_client(project)
    for tag in ("fakeface.detector", "fakeface.result", "fakeface.evaluated"):  # which the kill came before
        client.delete_tag(row.run_id, tag)
    client.delete_registered_model_alias("fakeface", "candidate")
    client.update_run(row.run_id, status="RUNNING")
    complete(project, NOTHING, result=result)
    (version,) = client.search_model_versions("name = 'fakeface'")
    assert client.get_model_version_by_alias("fakeface", "candidate").version == version.version
    assert client.get_run(row.run_id).data.tags["fakeface.detector"].split() == [
        row.result,
        version.source.removeprefix("models:/"),
        str(version.version),
    ]
