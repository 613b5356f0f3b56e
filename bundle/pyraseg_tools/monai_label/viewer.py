# SPDX-License-Identifier: Apache-2.0
"""OHIF, which comes with MONAI Label, and what it reads of a PACS through the label server: the served studies."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monailabel
import requests
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.interfaces.utils.app import app_instance

from bundle.pyraseg_tools.monai_label.archives import PacsArchive
from bundle.pyraseg_tools.pacs import TIMEOUT, filters_of_studies

logger = logging.getLogger(__name__)

#: Study Instance UID in DICOM JSON (PS3.18 F).
STUDY = "0020000D"
#: A part of a path below `studies`: a UID, a word, or numbers of frames.
PART = re.compile(r"[0-9A-Za-z][0-9A-Za-z.,_-]*")
#: A parameter of a search or a retrieval: a keyword or a tag, also one in a sequence.
ATTRIBUTE = re.compile(r"[0-9A-Za-z.]+")


router = APIRouter()
#: The page of OHIF and its parts.
PAGES = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"


@router.get("/ohif/{path:path}")
async def page(path: str) -> Response:
    """Answer with a part of OHIF, or with its page, whose addresses mean something to OHIF alone."""
    part = PAGES / path if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", path) else PAGES
    return FileResponse(part if part.is_file() else PAGES / "index.html")


@router.get("/proxy/dicom/{service}/{path:path}")
async def show(request: Request, service: str, path: str) -> Response:
    """Answer what OHIF asks of the PACS, which it may read: QIDO-RS and WADO-RS (PS3.18 10)."""
    archive = getattr(app_instance().datastore(), "archive", None)
    if not isinstance(archive, PacsArchive):
        raise HTTPException(404, "The server works on a folder. OHIF shows the studies of a PACS.")
    if service not in ("qido", "wado"):
        raise HTTPException(404, "The viewer may search and read only: submit labels to the label server.")
    query = dict(request.query_params)
    if not all(ATTRIBUTE.fullmatch(name) and value.isprintable() for name, value in query.items()):
        raise HTTPException(400, "A search is by keywords or tags of attributes and printable values. Correct it.")
    accept = request.headers.get("accept", "*/*")
    return await run_in_threadpool(forward, archive, path, query, accept)


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
    asked = dict(query)
    if not study:  # the PACS would count the studies that are not served, too
        asked = {name: value for name, value in query.items() if name not in ("limit", "offset")}
        asked = filters_of_studies(archive.filters) | asked
    try:
        url = f"{archive.name}/{path}"
        answer = archive.session.get(url, params=asked, headers={"Accept": accept}, timeout=TIMEOUT)
    except requests.RequestException as error:
        logger.warning("The PACS does not answer the viewer (%s)", type(error).__name__)
        raise HTTPException(502, "The PACS does not answer.") from error
    if study or not answer.ok or not answer.content:
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("Content-Type"))
    return JSONResponse(part_of([item for item in answer.json() if study_of(item) in archive.studies], query))


def part_of(found: Sequence[Any], query: Mapping[str, str]) -> Sequence[Any]:
    """Return the part of a list that a search asks for (`offset` and `limit`, PS3.18 8.3.4.4)."""
    offset, limit = (int(text) if (text := query.get(name, "")).isdecimal() else None for name in ("offset", "limit"))
    return found[offset or 0 :][:limit]


def study_of(item: Mapping[str, Any]) -> str:
    """Return the study of an answer to a search."""
    return str((item.get(STUDY, {}).get("Value") or [""])[0])
