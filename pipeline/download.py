"""Stage `download`: what data.root names → datasets/raw, with a manifest that proves every byte."""

from pathlib import Path

from fakeface.errors import one_sentence_errors
from fakeface.params import load_params
from fakeface.raw import choose_profile, collect_sources


def main() -> None:
    """Collect the sources of the chosen profile."""
    data = load_params(Path("params.yaml")).data
    name, profile = choose_profile(data)
    collection = collect_sources(Path(data.root), name, profile, Path("datasets/raw"))
    note = f" ({profile.note})" if profile.note else ""
    print(
        f"profile {name}{note}: {len(collection.files):,} images of {len(profile.sources)} sources in datasets/raw; "
        f"{len(collection.rejected):,} set aside, {collection.ignored:,} other files passed over"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
