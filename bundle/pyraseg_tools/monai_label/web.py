# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's web application, with what it lacks: it tells clients what is wrong, and web pages nothing."""

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from json import JSONDecodeError
from typing import NoReturn

import monailabel.app
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.endpoints import model, proxy
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from bundle.pyraseg.core import DiskError, PyrasegError, describe, mendable
from bundle.pyraseg_tools.monai_label.viewer import show
from bundle.pyraseg_tools.pacs import PacsError

logger = logging.getLogger(__name__)

#: The MONAI Label that the mends were tried with.
TRIED = "0.8.5"


async def tell(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer what is wrong, in place of `Internal Server Error`, and without what libraries quote of an image."""
    try:
        return await call_next(request)
    except Exception as error:
        status, text = what_is_wrong(error)
        logger.warning("%s", text)
        return JSONResponse({"detail": text}, status_code=status)


def what_is_wrong(error: Exception) -> tuple[int, str]:
    """Return the HTTP status of an error, and what a client is told."""
    if isinstance(error, MONAILabelException):
        return 404 if isinstance(error, ImageNotFoundException | LabelNotFoundException) else 400, str(error.msg)
    if isinstance(error, JSONDecodeError):
        return 400, "The params are no JSON. Correct them."
    cause = mendable(error)
    kinds = ((PacsError, 502), (DiskError, 507), (PyrasegError, 400), (object, 500))
    return next(status for kind, status in kinds if isinstance(cause, kind)), describe(error)


async def refuse_pages(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what a page from elsewhere asks: by its origin, or by a name of its own that it lets mean this machine."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if is_ours(request.url.hostname) and (origin is None or origin.partition("//")[2] == host):
        return await call_next(request)
    told = "Only pages of this server can use it. Ask for it by its address, localhost or the name of its machine."
    return JSONResponse({"detail": told}, status_code=403)


def is_ours(host: str | None) -> bool:
    """Return whether a name means this machine to everyone: an address does, another name is what its owner says."""
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return host in ("localhost", socket.gethostname().lower())
    return True


def keep_model(*asked: object) -> NoReturn:
    """Refuse to replace or remove a model, which MONAI Label does without a look at what it is sent."""
    raise PyrasegError("Only a training that improves a model replaces it. Clients cannot.")


def harden(app: FastAPI) -> FastAPI:
    """Mend MONAI Label's web application, and return it; what must be mended before its import is in `site/`.

    It tells clients what is wrong, and pages from elsewhere nothing: MONAI Label lets any page that is open in a
    browser of this machine read the images, and its setting against that (0.8.5) fails. Models are changed by no
    client, and OHIF is shown the served studies of a PACS alone.
    """
    if (found := version("monailabel")) != TRIED:
        logger.warning("The server's mends were tried with MONAI Label %s, and this is %s", TRIED, found)
    app.user_middleware = [middleware for middleware in app.user_middleware if middleware.cls is not CORSMiddleware]
    app.middleware("http")(tell)
    app.middleware("http")(refuse_pages)
    model.update_model = model.delete_model = keep_model
    proxy.proxy_dicom = show
    return app


#: What uvicorn serves.
app = harden(monailabel.app.app)
