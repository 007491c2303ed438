"""Helpers of the routes: errors as JSON, uncompressed binary bodies, whole numbers of a query."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tonelake.store import ClipNotFound, InputError, SpaceNotFound, TonelakeError

HEADERS = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
Answer = Callable[[Request], Response]


def errors_as_json(answer: Answer) -> Answer:
    """Decorate a route so that a TonelakeError becomes a JSON message with status 400 or 404."""

    @wraps(answer)
    def route(request: Request) -> Response:
        try:
            return answer(request)
        except TonelakeError as error:
            wrong = isinstance(error, InputError) and not isinstance(error, ClipNotFound | SpaceNotFound)
            return JSONResponse({"error": str(error)}, 400 if wrong else 404, HEADERS)

    return route


def binary(body: bytes, after: BackgroundTask | None = None, /, **headers: str) -> Response:
    return Response(body, 200, HEADERS | {"Content-Encoding": "identity"} | headers, "application/octet-stream", after)


def whole_number(request: Request, name: str, low: int, high: int) -> int:
    text = request.query_params.get(name, str(low))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise InputError(f"{name}={text!r}: not a whole number from {low} to {high}")
    return int(text)
