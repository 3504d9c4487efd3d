"""PostgREST's errors: its own codes, and the status it gives to what PostgreSQL answers.

After its documentation, "Errors" (v13); the texts as its clients see them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psycopg


@dataclass(kw_only=True, eq=False)
class PostgrestError(Exception):
    """What a request is refused with. Not frozen: an exception is given its traceback while it travels."""

    status: int
    code: str
    message: str
    details: object = None
    hint: str | None = None

    @property
    def body(self) -> Mapping[str, object]:
        """The JSON body, all four keys always there."""
        return {"code": self.code, "details": self.details, "hint": self.hint, "message": self.message}


def not_covered(what: str) -> PostgrestError:
    """PostgREST may know it; this stand-in does not, and says so instead of ignoring it."""
    message = f"The PostgREST stand-in does not cover {what}."
    return PostgrestError(status=501, code="STANDIN", message=message)


def unparsable(message: str, details: str) -> PostgrestError:
    """A part of the query string that is not its grammar."""
    return PostgrestError(status=400, code="PGRST100", message=message, details=details)


def invalid_body(message: str) -> PostgrestError:
    """A body that cannot be used."""
    return PostgrestError(status=400, code="PGRST102", message=message)


def unknown_column(table: str, column: str) -> PostgrestError:
    """A column in a body or in `columns` that the table does not have."""
    message = f"Could not find the '{column}' column of '{table}' in the schema cache"
    return PostgrestError(status=400, code="PGRST204", message=message)


def unknown_table(table: str) -> PostgrestError:
    """A path that names no table."""
    message = f"Could not find the table 'public.{table}' in the schema cache"
    return PostgrestError(status=404, code="PGRST205", message=message)


def not_one_row(rows: int) -> PostgrestError:
    """One object was asked for, and there is none or there are several."""
    message = "Cannot coerce the result to a single JSON object"
    details = f"The result contains {rows} rows"
    return PostgrestError(status=406, code="PGRST116", message=message, details=details)


def bad_range(details: str) -> PostgrestError:
    """A range that cannot be answered."""
    message = "Requested range not satisfiable"
    return PostgrestError(status=416, code="PGRST103", message=message, details=details)


_STATUS_BY_STATE: Final = {
    "23503": 409,  # foreign key
    "23505": 409,  # unique
    "25006": 405,  # a write in a read-only transaction
    "42883": 404,  # undefined function
    "42P01": 404,  # undefined table
    "42P17": 500,  # infinite recursion, e.g. of policies
    "53400": 500,
    "57P01": 503,  # ended by an administrator
    "P0001": 400,  # RAISE
}
_STATUS_BY_CLASS: Final = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,  # serialization failure, deadlock
    "53": 503,  # too many connections, disk full
    "54": 500,
    "55": 500,
    "57": 500,  # statement timeout
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "XX": 500,
}


def from_postgres(error: psycopg.Error, *, anonymous: bool) -> PostgrestError:
    """What PostgreSQL's refusal becomes. A missing privilege is 401 for the anonymous role, 403 for any other."""
    state = error.sqlstate
    if state is None:
        # libpq lost the server; or psycopg refused a value, which it does for a zero byte only.
        if isinstance(error, psycopg.DataError):
            return PostgrestError(status=400, code="22021", message=str(error))
        return PostgrestError(status=503, code="PGRST001", message="Database client error. Retrying the connection.")
    message = error.diag.message_primary or ""
    if state == "PGRST":
        return not_covered("RAISE SQLSTATE 'PGRST'")
    return PostgrestError(
        status=_status_of(state, message, anonymous=anonymous),
        code=state,
        message=message,
        details=error.diag.message_detail,
        hint=error.diag.message_hint,
    )


def _status_of(state: str, message: str, *, anonymous: bool) -> int:
    if state == "42501":
        return 401 if anonymous else 403
    if state == "21000":
        return 400 if message.endswith("requires a WHERE clause") else 500
    if state == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    if state.startswith("PT"):
        return int(state[2:]) if state[2:].isdecimal() else 500
    return _STATUS_BY_STATE.get(state) or _STATUS_BY_CLASS.get(state[:2], 400)
