"""Stage `split`: datasets/raw → a store of decoded images for each stage and for the held-out set, without a leak."""

from pathlib import Path

from fakeface.config.params import load_params
from fakeface.data.split.build_splits import sources_below_quota, split_dataset
from fakeface.system.errors import exit_on_user_error
from fakeface.tracking.run_context import fail_stale_runs_if_any


def main() -> None:
    """Decode, split, prove, write."""
    fail_stale_runs_if_any(Path.cwd())
    params = load_params(Path("params.yaml"))
    summary = split_dataset(
        raw=Path("datasets/raw"),
        cache=Path("datasets/decoded"),
        into=Path("datasets/split"),
        reports=Path("reports/data"),
        data=params.data,
        size=params.image_size,
    )
    aside = sum(summary["repaired"].values())
    print(
        f"profile {summary['profile']}: {summary['images']:,} images in datasets/split, "
        f"{summary['unusable']:,} unusable and {aside:,} set aside, all listed in reports/data/rejected.csv",
        *(f"fewer than params.yaml asks for: {short}" for short in sources_below_quota(summary)),
        sep="\n",
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
