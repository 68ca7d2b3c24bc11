"""Stage `download`: the sources of the chosen profile, fetched and unpacked where needed → datasets/raw."""

import os
from pathlib import Path

from fakeface.config.params import load_params
from fakeface.data.download.ingest import collect_sources
from fakeface.data.download.source_resolver import (
    choose_profile,
    fetch_collections,
    resolve_collections_folder,
    resolve_data_folder,
)
from fakeface.system.errors import exit_on_user_error
from fakeface.tracking.run_context import fail_stale_runs_if_any

UNPACKED = Path("datasets/unpacked")


def main() -> None:
    """Collect the sources of the chosen profile."""
    fail_stale_runs_if_any(Path.cwd())
    data = load_params(Path("params.yaml")).data
    root = resolve_data_folder(data, UNPACKED)
    name, profile = choose_profile(data, root)
    # DVC works in a temporary folder at times; what was fetched lies in the project itself
    collections = resolve_collections_folder(data, Path(os.environ.get("DVC_ROOT", "")))
    fetch_collections(profile, collections)
    collection = collect_sources(root, name, profile, Path("datasets/raw"), collections, UNPACKED)
    note = f" ({profile.note})" if profile.note else ""
    print(
        f"profile {name}{note}: {len(collection.files):,} images of {len(profile.sources)} sources in datasets/raw; "
        f"{len(collection.rejected):,} set aside, {collection.ignored:,} other files passed over",
        *collection.list_remarks(),
        sep="\n",
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
