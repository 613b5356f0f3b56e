# SPDX-License-Identifier: Apache-2.0
"""How 3D Slicer logs in: by a user name of any kind and the token of the server as its password."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request

from bundle.pyraseg_tools.monai_label.access import is_token
from bundle.pyraseg_tools.monai_label.fields import choice, text
from bundle.pyraseg_tools.monai_label.incoming import form, query

router = APIRouter(prefix="/auth")
#: What is answered without the token.
OPEN = (("GET", "/auth/"), ("POST", "/auth/token"))


@router.get("/")
async def is_asked_for(request: Request) -> dict[str, bool]:
    query(request)
    return {"enabled": request.app.state.token is not None}


@router.post("/token")
async def give(request: Request) -> dict[str, Any]:
    query(request)
    token = request.app.state.token
    async with form(request, username=text, password=text, grant_type=choice(["password"])) as sent:
        if token is None or not is_token(sent.get("password", ""), token):
            raise HTTPException(401, "The password is not the token of the server. Correct it.")
    return {"access_token": token, "token_type": "Bearer"}


@router.get("/token/valid")
async def is_valid(request: Request) -> dict[str, bool]:
    query(request)
    return {"valid": True}
