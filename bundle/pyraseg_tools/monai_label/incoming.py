# SPDX-License-Identifier: Apache-2.0
"""Requests as they come in: query, form, JSON and files, each made anew of its declared fields."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import Request
from starlette.datastructures import UploadFile

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.monai_label.fields import Field, rebuilt


def query(request: Request, **fields: Field) -> dict[str, Any]:
    """Return what the address of a request asks beside its path."""
    return rebuilt(fields, _once(request.query_params.multi_items()), "The address")


async def body(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request holds, which is empty where it holds none."""
    return as_object(await request.body() or b"{}")


@asynccontextmanager
async def form(request: Request, *, files: Sequence[str] = (), **fields: Field) -> AsyncGenerator[dict[str, Any]]:
    """Give what a form holds: its fields, and files under their own names; they are gone afterwards."""
    async with request.form(max_files=len(files) + 1, max_fields=8) as sent:
        yield rebuilt({**fields, **dict.fromkeys(files, _file)}, _once(sent.multi_items()), "The form")


def _file(value: Any) -> UploadFile:
    if not isinstance(value, UploadFile):
        raise PyrasegError("A text was sent where a file is expected. Send the file.")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PyrasegError("A field was sent twice. Send each once.")
    return found


def as_object(content: str | bytes) -> dict[str, Any]:
    """Return the JSON object of a text.

    Raises:
        PyrasegError: it is none.
    """
    try:
        found = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise PyrasegError("The params are no JSON. Correct them.") from error
    if not isinstance(found, dict):
        raise PyrasegError('The params are no JSON object such as {"max_epochs": 50}. Correct them.')
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
