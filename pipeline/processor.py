"""Stage `processor`: what `device` and `precision` come to on this machine → datasets/processor.json."""

import os
from pathlib import Path

from fakeface.config.params import load_params
from fakeface.models.processor import describe_processor
from fakeface.system.errors import exit_on_user_error
from fakeface.system.serialization import write_json
from fakeface.training.distributed.cluster import read_cluster


def main() -> None:
    """Write it; the stages that compute on the processor depend on the file."""
    params, cluster = load_params(Path("params.yaml")), read_cluster(os.environ)
    machines = len(cluster.addresses) if cluster else 1
    write_json(
        Path("datasets/processor.json"), describe_processor(params.device, params.precision) | {"machines": machines}
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
