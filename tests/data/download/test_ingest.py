"""The stages download and split on the profile `full`: small stand-ins laid out as the published archives are."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakeface.config.catalog import CELEBA_IDENTITIES, get_source
from tests.support.faulty_http_server import FaultyServer, serving
from tests.support.image_folders import picture_bytes
from tests.support.project import PROJECT

PARTS = {"train": 6, "valid": 2, "test": 2}
TAKE: Mapping[str, Any] = {
    "utkface_aligned": {"stage1": 10},
    "faces_140k_real": {"stage2": PARTS},
    "faces_140k_fake": {"stage2": PARTS},
    "utkface_wild": {"stage3": PARTS},
    "fakes_1m": {"stage1": 10, "stage3": 10, "heldout": 4},
    "lag": {"heldout": 4},
    "celeba": {"heldout": 3},
}
LAG = get_source("lag").archives[0].address


def pack(name: str, members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as opened:
            for member, content in members.items():
                opened.writestr(member, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if name.endswith(".gz") else "w") as packed:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    """Every file of the catalogue, by collection and name, in the layout that docs/data.md tells."""
    seeds = iter(range(10_000))

    def pictures(*names: str) -> dict[str, bytes]:
        return {name: picture_bytes(next(seeds), "JPEG") for name in names}

    inside = "real_vs_fake/real-vs-fake"
    both = [f"{inside}/{part}/{label}/{name}" for part in PARTS for label in ("real", "fake") for name in "abcd"]
    members = {
        "utkface_aligned/crop_part1.tar.gz": [f"part1/9_1_2_{n:017d}.jpg.chip.jpg" for n in range(10)],
        **{
            f"utkface_wild/part{p}.tar.gz": [f"part{p}/9_1_2_{p * 4 + n - 4:017d}.jpg" for n in range(4)]
            for p in (1, 2, 3)
        },
        **{
            f"fakes_1m/1m_faces_{tar:02d}.tar": [f"1m_faces_{tar:02d}/FAKE00{tar}{n:03d}.jpg" for n in range(count)]
            for tar, count in enumerate((10, 6, 4, 6))
        },
        "faces_140k/140k-real-and-fake-faces.zip": [f"{name}.jpg" for name in both],
        "lag/LAGdataset_200.zip": [f"LAGdataset_200/Some_Body/{y}{n}.png" for y in ("", "y/") for n in range(2)],
        "celeba/img_align_celeba.zip": [f"img_align_celeba/{n:06d}.jpg" for n in range(1, 6)],
    }
    packed = {name: pack(name, pictures(*names)) for name, names in members.items()}
    return packed | {f"celeba/{CELEBA_IDENTITIES}": b"".join(b"%06d.jpg 7\n" % n for n in range(1, 6))}


@dataclass(frozen=True)
class Stages:
    project: Path
    workspace: Path  # where DVC runs an experiment
    server: FaultyServer

    def run(self, stage: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        proxied = {"HTTP_PROXY": self.server.url, "http_proxy": self.server.url}
        return subprocess.run(
            [sys.executable, str(PROJECT / "pipeline" / f"{stage}.py")],
            cwd=self.workspace,
            env={**environment, **proxied, "PYTHONPATH": str(PROJECT / "src"), "DVC_ROOT": str(self.project)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    """All archives but one placed by hand and pinned; the last comes from its owners' address, by a server of ours."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["image_size"] = 32
    params["data"] |= {"profile": "full", "root": "nothing_here", "split": {"train": 0.6, "valid": 0.2, "test": 0.2}}
    for name, take in TAKE.items():
        params["data"]["profiles"]["full"]["sources"][name]["take"] = take
    project, workspace = tmp_path / "project", tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    pins = {}
    with serving() as server:
        for name, content in archives().items():
            pins[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            if name.startswith("lag/"):
                server.files[LAG] = content
                continue
            place = project / "collections" / ".archives" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        (project / "collections" / "data_checksums.json").write_text(json.dumps(pins))
        yield Stages(project, workspace, server)


def test_collections_become_the_notebooks_stages(stages: Stages) -> None:
    stages.server.faults[LAG] = ["403"]
    refused = stages.run("download")
    assert refused.returncode == 1
    sentence = refused.stderr.strip().splitlines()[-1]
    for said in (
        "fakeface: LAGdataset_200.zip could not be fetched",
        get_source("lag").page,
        "collections/.archives/lag",
    ):
        assert said in sentence
    assert "Traceback" not in refused.stderr

    stages.server.faults[LAG] = ["breaks"]
    download = stages.run("download")
    assert download.returncode == 0, download.stderr
    assert "profile full: 71 images of 7 sources" in download.stdout
    assert (
        "beyond the numbers under `take`: 2 of faces_140k_real, 2 of faces_140k_fake, 2 of utkface_wild"
        in download.stdout
    )
    assert (stages.workspace / "datasets/raw/fakes_1m/1m_faces_03/1m_faces_03/FAKE003003.jpg").exists()
    assert not (stages.workspace / "collections").exists()

    split = stages.run("split")
    assert split.returncode == 0, split.stderr
    told = json.loads((stages.workspace / "reports/data/split.json").read_text())
    assert told["roles"] == {
        "real": {"stage1": PARTS, "stage2": PARTS, "stage3": PARTS, "heldout": {"heldout": 7}},
        "fake": {"stage1": PARTS, "stage2": PARTS, "stage3": PARTS, "heldout": {"heldout": 4}},
    }
    assert "fewer than" not in split.stdout

    stages.server.seen.clear()
    (stages.workspace / "datasets/raw/manifest.csv").unlink()
    assert stages.run("download").returncode == 0
    assert stages.server.seen == []
