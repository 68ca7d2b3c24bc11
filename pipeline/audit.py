"""Stage `audit`: datasets/raw and datasets/split → reports/data/: what to read before believing the split."""

from pathlib import Path

from fakeface.config.params import load_params
from fakeface.data.audit.run_audit import PAGE, audit_dataset
from fakeface.system.errors import exit_on_user_error


def main() -> None:
    """Measure, try the shortcuts, write."""
    reports = Path("reports/data")
    audit = audit_dataset(
        raw=Path("datasets/raw"),
        split=Path("datasets/split"),
        cache=Path("datasets/measured"),
        reports=reports,
        data=load_params(Path("params.yaml")).data,
    )
    print(f"{audit['images']:,} images audited, {len(audit['leaks'])} leaks: read {reports / PAGE} in a browser")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
