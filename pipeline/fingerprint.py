"""Stage `fingerprint`: what decides results and DVC cannot see → datasets/processor.json, datasets/collections.json."""

import os
from pathlib import Path

from fakeface.config.params import load_params
from fakeface.data.download.collection_fingerprint import fingerprint_collections
from fakeface.data.download.source_resolver import resolve_collections_folder
from fakeface.models.device_fingerprint import describe_processor
from fakeface.system.errors import exit_on_user_error
from fakeface.system.project import find_main_folder
from fakeface.system.serialization import write_json
from fakeface.training.distributed.cluster import read_cluster


def main() -> None:
    """Write what this machine computes on, and which files the fetched collections have."""
    params, cluster = load_params(Path("params.yaml")), read_cluster(os.environ)
    machines = {"machines": len(cluster.addresses) if cluster else 1}
    write_json(Path("datasets/processor.json"), describe_processor(params.device, params.precision) | machines)
    collections = resolve_collections_folder(params.data, find_main_folder(Path.cwd()))
    write_json(Path("datasets/collections.json"), fingerprint_collections(params.data, collections))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
