"""The application: the interfaces of the service, its errors, its description, and the guards of requests.

The page of the description (/docs) loads nothing from another host, which its Content-Security-Policy enforces.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, RedirectResponse, Response

import tonelake
from tonelake.serve.access import Access
from tonelake.serve.analysis import analysis_router
from tonelake.serve.answers import Answers
from tonelake.serve.errors import RETRY_AFTER_S, sentence_of, status_of
from tonelake.serve.native import native_router
from tonelake.serve.subsonic import Accounts, subsonic_router
from tonelake.store import LakeError, TonelakeError

OWN_HOST_ONLY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
COMPRESSION = 5                          # of gzip: a tenth larger than at 9, in half the time

log = logging.getLogger("tonelake.serve")


def create_app(
    answers: Answers, *, token: str | None = None, user: str | None = None, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """Return the application.

    `token`: that requests have to carry; None for none.  `user`: the only user name that OpenSubsonic clients may give; None
    for any.  `hosts`: names by which the service may be asked for.
    """
    app = FastAPIOffline(
        docs_url="/docs", redoc_url=None, title="tonelake", version=tonelake.__version__, telemetry=NO_TELEMETRY,
        description="Songs of a lake and what sounds like them.  Read-only.", swagger_ui_parameters={"validatorUrl": None},
        generate_unique_id_function=lambda route: f"{route.path_format.split('/')[1]}_{route.name}",
    )
    app.include_router(native_router(answers))
    app.include_router(analysis_router(answers))
    app.include_router(subsonic_router(answers, Accounts(token=token, user=user)))
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    app.add_exception_handler(TonelakeError, lake_problem)
    app.add_exception_handler(RequestValidationError, wrong_parameter)
    app.add_exception_handler(HTTPException, other_problem)
    app.add_exception_handler(Exception, failure)
    app.openapi = lambda: description(app, guarded=token is not None)                       # type: ignore[method-assign]
    # The last one added sees a request first.
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=COMPRESSION)
    app.add_middleware(Access, token=token, page_policy=OWN_HOST_ONLY)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return app


def problem(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def lake_problem(request: Request, error: Exception) -> Response:
    """Answer with an error of the lake."""
    assert isinstance(error, TonelakeError)
    status = status_of(error)
    if status == 503 and not isinstance(error, LakeError):           # which is logged where it arises
        log.warning("%s", error)
    return problem(sentence_of(error), status, {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None)


async def wrong_parameter(request: Request, error: Exception) -> Response:
    """Answer with the first parameter that is missing or wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return problem(f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}. See /docs", 400)


async def other_problem(request: Request, error: Exception) -> Response:
    """Answer with an unknown address, a method that is not allowed, and the like."""
    assert isinstance(error, HTTPException)
    return problem(f"{request.method} {request.url.path[:80]}: {error.detail}. See /docs", error.status_code,
                   dict(error.headers or {}))


async def failure(request: Request, error: Exception) -> Response:
    """Answer with an error of the program, whose traceback goes to the log."""
    return problem("service: failed on this request. Its log has the details", 500)


def description(app: FastAPI, *, guarded: bool) -> dict[str, Any]:
    """Return the OpenAPI description, made once: errors in the form in which they are sent."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = found.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        parts["Problem"] = {
            "title": "Problem", "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
        }
        for operations in found["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        if guarded:
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
        app.openapi_schema = found
    return app.openapi_schema
