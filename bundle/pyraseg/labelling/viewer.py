# SPDX-License-Identifier: Apache-2.0
"""What OHIF, which comes with MONAI Label, reads of a PACS through the label server: the studies that are served."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import requests
from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from monailabel.interfaces.utils.app import app_instance

from bundle.pyraseg.labelling.archives import PacsArchive
from bundle.pyraseg.pacs.connection import TIMEOUT

logger = logging.getLogger(__name__)

#: Study Instance UID in DICOM JSON (PS3.18 F).
STUDY = "0020000D"
#: A part of a path below `studies`: a UID, a word, or numbers of frames.
PART = re.compile(r"[0-9A-Za-z][0-9A-Za-z.,_-]*")


async def show(request: Request, service: str, path: str) -> Response:
    """Answer OHIF, which the server has at /ohif/, in place of MONAI Label's `proxy_dicom`.

    That drops the parameters of a search, shows every study, stores what it is sent, and knows no certificates.
    """
    archive = getattr(app_instance().datastore(), "archive", None)
    if not isinstance(archive, PacsArchive):
        raise HTTPException(404, "The server works on a folder. OHIF shows the studies of a PACS.")
    if request.method != "GET":
        raise HTTPException(403, "The viewer may only read: submit labels to the label server.")
    accept = request.headers.get("accept", "*/*")
    return await run_in_threadpool(forward, archive, path, request.query_params, accept)


def forward(archive: PacsArchive, path: str, query: Mapping[str, str], accept: str) -> Response:
    """Return what a PACS answers to a search or a retrieval (PS3.18 10), as far as its studies are served.

    Args:
        archive: the PACS and its studies.
        path: below the address of its DICOMweb: `studies`, or `studies/UID/...`.
        query: parameters.
        accept: the media types that the viewer takes.

    Raises:
        HTTPException: it asks for something else, or the PACS does not answer.
    """
    level, *rest = path.split("/")
    study = rest[0] if rest else ""
    is_plain = all(PART.fullmatch(part) for part in rest)  # no way up, in any spelling
    if level != "studies" or not is_plain or (study and study not in archive.studies):
        raise HTTPException(403, "Only the studies that the server was started for are shown.")
    try:
        url = f"{archive.name}/{path}"
        answer = archive.session.get(url, params=query, headers={"Accept": accept}, timeout=TIMEOUT)
    except requests.RequestException as error:
        logger.warning("The PACS does not answer the viewer (%s)", type(error).__name__)
        raise HTTPException(502, "The PACS does not answer.") from error
    if not study and answer.ok and answer.content:
        return JSONResponse([item for item in answer.json() if study_of(item) in archive.studies])
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("Content-Type"))


def study_of(item: Mapping[str, Any]) -> str:
    """Return the study of an answer to a search."""
    return str((item.get(STUDY, {}).get("Value") or [""])[0])
