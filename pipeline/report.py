"""Stage `report`: the numbers in reports/ → reports/report.html and reports/figures, for people."""

from pathlib import Path

from fakeface.config.params import load_params
from fakeface.constants import HELDOUT
from fakeface.reporting.page import write_result_page
from fakeface.system.errors import exit_on_user_error


def main() -> None:
    """Write the page and its figures, and say where the page is."""
    settings = load_params(Path("params.yaml")).report
    page = write_result_page(Path("reports"), Path("datasets/split") / HELDOUT, settings.mistakes)
    print(f"the result in words and figures: open {page} in a browser", flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
