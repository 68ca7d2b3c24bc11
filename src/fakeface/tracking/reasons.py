"""What went wrong with a tracking store, told so that the user can mend it."""

from __future__ import annotations

_BY_CODE = {
    "UNAUTHENTICATED": "refuses the password (check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)",
    "PERMISSION_DENIED": "does not let this user write (ask its owner for the right to edit)",
}
_BY_CODE["CUSTOMER_UNAUTHORIZED"] = _BY_CODE["UNAUTHENTICATED"]
_BY_TEXT = {
    ("out-of-date database schema", "Can't locate revision"): (
        "was made by another version of MLflow (copy the file, then run `mlflow db upgrade` on it)"
    ),
    ("database is locked",): "is locked by another program (close what writes to it)",
    ("No space left", "disk is full"): "has no space left (free some)",
    ("readonly database", "Permission denied", "Read-only file system"): "cannot be written to (check owner and mode)",
    ("Max retries", "Connection", "timed out"): "does not answer (check that it runs, and MLFLOW_TRACKING_URI)",
}


def reason(error: BaseException) -> str:
    """Why a store did not take something, as the end of a sentence, with what to do."""
    code, text = getattr(error, "error_code", ""), " ".join(str(error).split())
    if code in _BY_CODE:
        return _BY_CODE[code]
    known = (said for signs, said in _BY_TEXT.items() if any(sign in text for sign in signs))
    return next(known, f"took nothing ({text[:200]})")


def is_refused(error: BaseException) -> bool:
    """Whether sending the same event again can never work."""
    ours = (ValueError, TypeError, KeyError, AttributeError)
    return getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE" or isinstance(error, ours)


def is_gone(error: BaseException) -> bool:
    """Whether the row was deleted by someone while we wrote to it."""
    code, text = getattr(error, "error_code", ""), str(error)
    return code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in text
