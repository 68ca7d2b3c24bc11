"""What went wrong with a tracking store, told so that the user can mend it."""

from __future__ import annotations

_PASSWORD = "refuses the password (check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
_NO_RIGHT = "does not let this user write (ask its owner for the right to edit)"
_SILENT = "does not answer (check that it runs, and MLFLOW_TRACKING_URI)"
_BY_CODE = {"UNAUTHENTICATED": _PASSWORD, "CUSTOMER_UNAUTHORIZED": _PASSWORD, "PERMISSION_DENIED": _NO_RIGHT}
_BY_TEXT = {
    ("out-of-date database schema", "Can't locate revision"): (
        "was made by another version of MLflow (an older one: copy the database, then run `mlflow db upgrade` with its "
        "address; a newer one: use that MLflow)"
    ),
    ("database is locked",): "is locked by another program (close what writes to it)",
    ("No space left", "disk is full"): "has no space left (free some)",
    ("readonly database", "Permission denied", "Read-only file system"): "cannot be written to (check owner and mode)",
    ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"): _NO_RIGHT,
    ("Max retries", "Connection", "Could not connect", "timed out", "error code 5", "error code 404"): _SILENT,
}
_MAY_PASS = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


def describe_store_error(error: BaseException) -> str:
    """Why a store did not take something, as the end of a sentence, with what to do."""
    return _find_known(error) or f"took nothing ({' '.join(str(error).split())[:200]})"


def is_away(error: BaseException) -> bool:
    """Whether the same event may be taken later; anything else is wrong with the event itself."""
    return bool(_find_known(error)) or getattr(error, "error_code", "") in _MAY_PASS or isinstance(error, OSError)


def is_deleted(error: BaseException) -> bool:
    """Whether the run was deleted by someone while we wrote to it."""
    code, text = getattr(error, "error_code", ""), str(error)
    return code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in text


def _find_known(error: BaseException) -> str:
    code, text = getattr(error, "error_code", ""), str(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((said for signs, said in _BY_TEXT.items() if any(sign in text for sign in signs)), "")
