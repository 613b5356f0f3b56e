# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's web application, with what it lacks: it tells clients what is wrong, and web pages nothing."""

import logging

from fastapi import Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.endpoints import proxy

from bundle.pyraseg.errors import PyrasegError, mendable
from bundle.pyraseg.labelling.viewer import show

logger = logging.getLogger(__name__)


def tell(request: Request, error: Exception) -> JSONResponse:
    """Answer what a client can mend by its message, in place of `Internal Server Error`."""
    cause = mendable(error)
    if cause is None:
        raise error
    logger.warning("%s", cause)
    return JSONResponse({"detail": str(cause)}, status_code=400)


for kind in (PyrasegError, RuntimeError):  # MONAI's transforms raise the second from the first
    app.add_exception_handler(kind, tell)
# MONAI Label lets any page that is open in a browser here read the images; its setting against that (0.8.5) fails.
app.user_middleware = [middleware for middleware in app.user_middleware if middleware.cls is not CORSMiddleware]
proxy.proxy_dicom = show
