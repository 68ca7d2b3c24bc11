"""Complete the experiment's run in MLflow and register its model, whatever DVC ran or took from its cache."""

from pathlib import Path

from fakeface.system.errors import exit_on_user_error
from fakeface.tracking import record_experiment


def main() -> None:
    """Say where the result is in MLflow."""
    print(record_experiment(Path.cwd()), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
