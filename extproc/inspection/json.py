"""JSON at the edge: narrow typed decoding, and every way it can fail as one `RequestError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from extproc.inspection.request import RequestError

Shape = TypeVar("Shape")
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<field>.*?)`)?$", re.DOTALL)


def decode(body: bytes, decoder: msgspec.json.Decoder[Shape]) -> Shape:
    """Decode a body into the decoder's shape; fields the shape does not name are skipped, not built.

    Raises:
        RequestError: not UTF-8, not JSON, nested too deeply, or a named field has another type.
    """
    if not body:
        raise RequestError("The request has no body; a JSON object is expected.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        place = _PLACE.match(str(error))
        field = place["field"] if place and place["field"] else None
        what = place["what"].replace("`", "'") if place else str(error)
        raise RequestError(f"Invalid request: {what}{f' in {field!r}' if field else ''}.", param=field) from None
    except UnicodeDecodeError:
        raise RequestError("The request body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise RequestError("The request body is nested too deeply.") from None


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def replace_fields(body: bytes, changes: Mapping[str, bytes]) -> bytes:
    """Set top-level fields of a JSON object to raw JSON values; every other value keeps its very bytes.

    White space between top-level fields goes, and of a repeated field the last stays.
    """
    return msgspec.json.encode(decode(body, _OBJECT) | {name: msgspec.Raw(value) for name, value in changes.items()})
