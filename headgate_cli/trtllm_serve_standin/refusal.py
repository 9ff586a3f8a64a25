"""How trtllm-serve says no: one JSON shape for all errors of the OpenAI endpoints."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error; `object` is always `error`.

    Recent releases answer a request they cannot parse with `{"error": "text"}` instead; clients map both by status
    alone, so only this one is spoken here.
    """

    object: str = "error"
    message: str
    type: str
    param: str | None = None
    code: int


class Refusal(Exception):  # noqa: N818  (an answer, not a fault of ours)
    """Raised when a request is answered with an error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)

    @property
    def body(self) -> ErrorBody:
        """What the client reads."""
        return ErrorBody(message=self.message, type=_TYPES[self.status], code=self.status.value)


_TYPES: dict[Any, str] = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableError",
}
