"""Downloads from Google Drive and Kaggle, by the libraries that know them."""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path

from fakeface.data.download.transfer import (
    TIMEOUT,
    PartialFile,
    RetryPolicy,
    accept_part,
    describe_error,
    explain_full_disk,
)
from fakeface.data.download.verify_download import DownloadError, Expected
from fakeface.system.archive_members import Progress
from fakeface.system.errors import UserError


def download_from_drive(
    url: str,
    target: Path,
    expected: Expected | None = None,
    *,
    progress: Progress | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """As `download`, by gdown, which knows Google Drive's confirmation pages and quotas."""
    import gdown
    import requests
    from gdown.exceptions import DownloadError as GdownError
    from gdown.exceptions import FileURLRetrievalError

    part = PartialFile(target)
    left_before = _list_part_sizes(part)
    try:
        with explain_full_disk(target):
            gdown.download(
                url=url,
                output=str(part.path),
                quiet=True,
                use_cookies=False,
                resume=True,
                retries=(patience or RetryPolicy()).retries,
                timeout=TIMEOUT,
                progress=(lambda done, total: progress(target.name, done, total)) if progress else None,
            )
    except FileURLRetrievalError as error:
        raise DownloadError("Google Drive does not give it now, for its daily quota or its owners' wish") from error
    except GdownError as error:
        if isinstance(error.__cause__, requests.RequestException):
            raise DownloadError(describe_error(error.__cause__)) from error
        if not left_before or _list_part_sizes(part) != left_before:  # something came: there is more to go on from
            raise DownloadError("the connection broke off") from error
        for path in left_before:  # gdown could not go on from these, and would not start over beside them
            path.unlink(missing_ok=True)
        download_from_drive(url, target, expected, progress=progress, patience=patience)
        return
    except requests.RequestException as error:
        raise DownloadError(describe_error(error)) from error
    accept_part(part, expected or Expected())


def _list_part_sizes(part: PartialFile) -> dict[Path, int]:
    """Bytes of each file that gdown keeps of this one; it adds eight random characters and an ending to the name."""
    return {path: path.stat().st_size for path in part.path.parent.glob(f"{part.path.name}????????.part")}


def download_from_kaggle(
    handle: str,
    target: Path,
    expected: Expected | None = None,
    *,
    progress: Progress | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """As `download`, by kagglehub, which knows the user's token, resumes, and proves by Kaggle's md5.

    Of it only the transfer is used: it would unpack without the limits of `archives`. It shows its own progress.
    """
    import requests
    from kagglehub.clients import build_kaggle_client, download_file
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError, handle_call
    from kagglehub.handle import parse_dataset_handle
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    part, dataset, request = PartialFile(target), parse_dataset_handle(handle), ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.owner, dataset.dataset
    request.dataset_version_number = dataset.version
    try:
        with explain_full_disk(target), build_kaggle_client() as client:
            answer = handle_call(lambda: client.datasets.dataset_api_client.download_dataset(request), dataset)
            download_file(answer, str(part.path), dataset)
    except (requests.RequestException, UnauthenticatedError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or isinstance(error, UnauthenticatedError):
            raise UserError(
                f"Kaggle wants your own token for {handle}: make one at https://www.kaggle.com/settings/api, "
                "put it in ~/.kaggle/access_token or in KAGGLE_API_TOKEN and run the same command again."
            ) from error
        raise DownloadError(describe_error(error)) from error
    except DataCorruptionError as error:
        raise DownloadError("it has another md5 than Kaggle states") from error
    accept_part(part, expected or Expected())
