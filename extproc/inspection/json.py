"""JSON at the edge: narrow typed decoding, and every way it can fail as one `RequestError`.

Decoding finds where values begin and end and reads the few that decide; a text that is only weighed is not looked into.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from extproc.inspection.request import RequestError

Shape = TypeVar("Shape")
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<field>.*?)`)?$", re.DOTALL)


def decode(body: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Shape], at: str = "") -> Shape:
    """Decode a body, or the value at the field `at` of one; what the decoder's shape does not name is skipped.

    Raises:
        RequestError: not JSON, nested too deeply, or a named field has another type or is not UTF-8.
    """
    if not body:
        raise RequestError("The request has no body; a JSON object is expected.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        place = _PLACE.match(str(error))
        field = _joined(at, place["field"] or "" if place else "")
        what = place["what"].replace("`", "'") if place else str(error)
        raise RequestError(f"Invalid request: {what}{f' in {field!r}' if field else ''}.", param=field) from None
    except UnicodeDecodeError:
        raise RequestError("The request body is not valid UTF-8.", param=at or None) from None
    except msgspec.DecodeError as error:
        raise RequestError(f"The request body is not valid JSON: {error}.", param=at or None) from None
    except RecursionError:
        raise RequestError("The request body is nested too deeply.", param=at or None) from None


def _joined(at: str, field: str) -> str | None:
    """The path of a field of the value at `at`; None for the body as a whole."""
    return (f"{at}.{field}" if at and field and not field.startswith("[") else at + field) or None
