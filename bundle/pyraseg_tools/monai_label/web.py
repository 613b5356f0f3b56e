# SPDX-License-Identifier: Apache-2.0
"""The web application of the label server: its own addresses alone, for those who may ask.

MONAI Label's web application is not used: of MONAI Label, clients reach what `routes` and `viewer` call with requests
that they have made anew.
"""

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from starlette.exceptions import HTTPException

from bundle.pyraseg.core import DiskError, PyrasegError, describe, mendable
from bundle.pyraseg_tools.monai_label import login, routes, viewer
from bundle.pyraseg_tools.monai_label.access import TOKEN, holds_token, is_from_elsewhere, is_known
from bundle.pyraseg_tools.pacs import PacsError

logger = logging.getLogger(__name__)


async def tell(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer what is wrong, in place of `Internal Server Error`, and without what libraries quote of an image."""
    try:
        return await call_next(request)
    except Exception as error:
        status, text = what_is_wrong(error)
        level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        logger.log(level, "%s", text)  # what a client has to correct may quote a name, which may be a patient's
        return JSONResponse({"detail": text}, status_code=status)


def what_is_wrong(error: Exception) -> tuple[int, str]:
    """Return the HTTP status of an error, and what a client is told."""
    if isinstance(error, MONAILabelException):
        return 404 if isinstance(error, ImageNotFoundException | LabelNotFoundException) else 400, str(error.msg)
    cause = mendable(error)
    kinds = ((PacsError, 502), (DiskError, 507), (PyrasegError, 400), (object, 500))
    return next(status for kind, status in kinds if isinstance(cause, kind)), describe(error)


async def nothing_there(request: Request, error: Exception) -> Response:
    """Answer for an address, or a method of it, that the server does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    told = getattr(error, "detail", "")
    if status in (404, 405) and told in ("Not Found", "Method Not Allowed"):
        told = "The label server has no such address and method, only those that docs/label.md lists."
    return JSONResponse({"detail": told}, status_code=status, headers=getattr(error, "headers", None))


async def admit(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what a page from elsewhere asks, by its origin or by a name of its own, and who lacks the token."""
    names = settings.MONAI_LABEL_APP_CONF["names"].split(",")
    if not is_known(request.url.hostname, names) or is_from_elsewhere(
        request.headers.get("origin"), request.headers.get("host", "")
    ):
        told = "Only pages of this server can use it. Ask for it by its address, localhost or the name of its machine."
        return JSONResponse({"detail": told}, status_code=403)
    token = request.app.state.token
    asks_to_log_in = (request.method, request.url.path) in login.OPEN
    if token and not asks_to_log_in and not holds_token(request.headers.get("authorization"), token):
        told = "The server asks for its token: as a Bearer token, or as the password of any user."
        headers = {"WWW-Authenticate": 'Basic realm="Pyraseg", charset="UTF-8"'}
        return JSONResponse({"detail": told}, status_code=401, headers=headers)
    return await call_next(request)


@asynccontextmanager
async def begin(_: FastAPI) -> AsyncGenerator[None]:
    """Load the bundles before the first request; trainings and scorings are processes of their own."""
    app_instance().server_mode(True)
    yield


def build() -> FastAPI:
    """Return the web application."""
    app = FastAPI(title="Pyraseg", openapi_url=None, docs_url=None, redoc_url=None, lifespan=begin)
    app.state.token = os.environ.pop(TOKEN, None)  # no process that the server starts has use for it
    app.middleware("http")(tell)
    app.middleware("http")(admit)
    app.add_exception_handler(HTTPException, nothing_there)
    for part in (routes, login, viewer):
        app.include_router(part.router)
    return app


#: What uvicorn serves.
app = build()
