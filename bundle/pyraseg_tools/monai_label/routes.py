# SPDX-License-Identifier: Apache-2.0
"""What the label server answers: the addresses that 3D Slicer and OHIF use, and no other of MONAI Label's.

Each request is made anew of declared fields before MONAI Label sees anything of it. Like MONAI Label's own, the routes
work one after the other: its tasks for bundles share configs and Python's module path.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from requests_toolbelt import MultipartEncoder
from starlette.datastructures import UploadFile

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.monai_label.dicom_datastore import UID, DicomDatastore
from bundle.pyraseg_tools.monai_label.fields import (
    TAGS,
    Field,
    batch_fields,
    choice,
    client,
    flag_text,
    inference_fields,
    left_out,
    new_name,
    rebuilt,
    scoring_fields,
    segments,
    short,
    text,
    training_fields,
)
from bundle.pyraseg_tools.monai_label.incoming import as_object, body, form, query
from bundle.pyraseg_tools.monai_label.uploads import Sessions, keep_upload

router = APIRouter()
sessions = Sessions()


def _any_text(value: Any) -> str:
    return str(value)


def _chosen(kind: str, name: str) -> dict[str, Any]:
    """Return what the app tells of one of its models, trainers, strategies or scoring methods."""
    known = app_instance().info()[kind]
    if name not in known:
        raise PyrasegError(f"There is no {short(name)} among the {kind}: {', '.join(known)}.")
    return known[name]


def _inference(model: str, declare: Any) -> dict[str, Field]:
    told, every = _chosen("models", model), app_instance().info()["labels"]
    labels = [*(told.get("labels") or ())]
    return declare(told["config"], kind=told.get("type", ""), labels=labels, others=[*(every or ())])


def _image(image: Any) -> str:
    """Return the identity of an image, which is one that the server lists."""
    if image not in app_instance().datastore().list_images() or image.startswith("."):
        raise HTTPException(404, "There is no such image. GET /datastore/?output=all lists them.")
    return image


def _kept(sent: UploadFile, suffixes: list[str]) -> Path:
    return keep_upload(sent.file, sent.filename or "", suffixes, Path(tempfile.gettempdir()))


def _suffixes() -> list[str]:
    return [pattern.removeprefix("*") for pattern in settings.MONAI_LABEL_DATASTORE_FILE_EXT]


@router.get("/info/")
async def info(request: Request) -> Any:
    query(request)
    return app_instance().info()


@router.post("/infer/{model}")
async def infer(request: Request, model: str) -> Response:
    """Segment an image of the server, one of a session, or one that comes with the request."""
    asked = query(request, image=_any_text, session_id=text, output=choice(("image", "json", "all")))
    fields = _inference(model, inference_fields)
    async with form(request, files=("file",), params=_any_text) as sent:
        options = rebuilt(fields, as_object(sent.get("params") or "{}"), f"An inference of {model}")
        upload = _kept(sent["file"], _suffixes()) if "file" in sent else None
    try:
        if upload:
            image = str(upload)
        elif "session_id" in asked:
            image = str(sessions.image(asked["session_id"]))
        else:
            image = _image(asked.get("image"))
        result = app_instance().infer({**options, "model": model, "image": image})
    finally:
        if upload:
            upload.unlink(missing_ok=True)
    return _answer(result, asked.get("output", "all"))


def _answer(result: Mapping[str, Any], output: str) -> Response:
    """Answer with what an inference found, and remove its file."""
    path, params = Path(result.get("file") or "-"), result.get("params")
    content = path.read_bytes() if path.is_file() else None
    path.unlink(missing_ok=True)
    if output == "json" or content is None:
        return JSONResponse(params)
    if output == "image":
        named = {"Content-Disposition": f'attachment; filename="{path.name}"'}
        return Response(content, media_type="application/octet-stream", headers=named)
    fields = {
        "params": (None, json.dumps(params), "application/json"),
        "image": (path.name, content, "application/octet-stream"),
    }
    encoded = MultipartEncoder(fields)
    return Response(encoded.to_string(), media_type=encoded.content_type)


@router.post("/batch/infer/{model}")
async def batch_infer(request: Request, model: str) -> Any:
    asked = query(request, images=choice(("all", "labeled", "unlabeled")))
    options = rebuilt(_inference(model, batch_fields), await body(request), f"An inference of {model}")
    return _started("batch_infer", {**options, "model": model, "images": asked.get("images", "all")})


@router.post("/train/{model}")
async def train(request: Request, model: str) -> Any:
    query(request)
    return _started("train", _training(model, await body(request)))


@router.post("/train/")
async def train_all(request: Request) -> Any:
    """Train each model, as OHIF asks: by a JSON object of the options of each."""
    query(request)
    asked = await body(request)
    asked.pop("client_id", None)
    known = app_instance().info()["trainers"]
    options = rebuilt(dict.fromkeys(known, _options), asked, "A training of all models")
    requests = {model: _training(model, options.get(model, {})) for model in known}
    return {model: {"result": _started("train", one, enqueue=True)} for model, one in requests.items()}


def _options(value: Any) -> dict[str, Any]:
    return as_object(json.dumps(value))


def _training(model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    fields = training_fields(_chosen("trainers", model)["config"])
    return {**rebuilt(fields, asked, f"A training of {model}"), "model": model}


@router.post("/scoring/{method}")
async def scoring(request: Request, method: str) -> Any:
    query(request)
    _chosen("scoring", method)
    options = rebuilt(scoring_fields(), await body(request), f"A scoring by {method}")
    return _started("scoring", {**options, "method": method})


def _started(method: str, request: dict[str, Any], *, enqueue: bool = False) -> Any:
    task, why_not = AsyncTask.run(method, request=request, enqueue=enqueue)
    if task is None:
        raise HTTPException(429, why_not)
    return task


def _add_task(path: str, method: str) -> None:
    """Add the addresses that tell of running tasks of a kind, and that stop them."""

    @router.get(path)
    async def status(request: Request) -> Any:
        asked = query(request, all=flag_text, check_if_running=flag_text)
        state, none = AsyncTask.status(method, asked.get("all", False), asked.get("check_if_running", False))
        if state is None:
            raise HTTPException(404, none)
        return state

    @router.delete(path)
    async def stop(request: Request) -> Any:
        query(request)
        return AsyncTask.stop(method)


for _path, _method in {"/batch/infer": "batch_infer", "/train/": "train", "/scoring/": "scoring"}.items():
    _add_task(_path, _method)


@router.post("/activelearning/{strategy}")
async def next_sample(request: Request, strategy: str) -> Any:
    """Tell which image to label next, and remember that it was told."""
    query(request)
    _chosen("strategies", strategy)
    rebuilt({"client_id": left_out}, await body(request), "The choice of an image")
    app = app_instance()
    sample = app.next_sample({"strategy": strategy})
    if not sample:
        return {}
    datastore, image = app.datastore(), sample["id"]
    known = datastore.get_image_info(image)
    told = {**known.get("strategy", {}), strategy: {"ts": int(time.time())}}
    datastore.update_image_info(image, {"strategy": told})
    return {**sample, **known, "strategy": told}


@router.get("/datastore/")
async def datastore(request: Request) -> Any:
    asked = query(request, output=choice(("stats", "all")))
    store = app_instance().datastore()
    return store.json() if asked.get("output") == "all" else store.status()


@router.get("/datastore/image")
async def image_file(request: Request) -> Response:
    asked = query(request, image=_any_text)
    return _file(app_instance().datastore().get_image_uri(_image(asked.get("image"))), "image")


@router.put("/datastore/")
@router.put("/datastore/image")
async def add_image(request: Request) -> Any:
    name = query(request, image=new_name).get("image")
    async with form(request, files=("file",), params=_any_text) as sent:
        rebuilt({"client_id": left_out}, as_object(sent.get("params") or "{}"), "A new image")
        if name is None or "file" not in sent:
            raise PyrasegError("A new image needs its name in the address, ?image=NAME, and a file. Send both.")
        upload = _kept(sent["file"], _suffixes())
    try:
        return {"image": app_instance().datastore().add_image(name, str(upload), {})}
    finally:
        upload.unlink(missing_ok=True)


@router.get("/datastore/label")
async def label_file(request: Request) -> Response:
    asked = query(request, label=_any_text, tag=choice(TAGS))
    store, label = app_instance().datastore(), asked.get("label", "")
    if not UID.fullmatch(label):  # of a segmentation that is stored; else it is called as its image
        label = _image(label)
    return _file(store.get_label_uri(label, asked.get("tag", "final")), "label")


@router.put("/datastore/label")
async def save_label(request: Request) -> Any:
    asked = query(request, image=_any_text, tag=choice(TAGS))
    app, image = app_instance(), _image(asked.get("image"))
    fields = {"label_info": segments, "model": choice([*app.bundles]), **_WHO}
    async with form(request, files=("label",), params=_any_text) as sent:
        told = rebuilt(fields, as_object(sent.get("params") or "{}"), "A label")
        if "label" not in sent:
            raise PyrasegError("No label was sent. Send its file as the field label.")
        upload = _kept(sent["label"], [*_suffixes(), ".seg.nrrd"])
    reviewer = _reviewer(told)
    if isinstance(app.datastore(), DicomDatastore):
        told["reviewer"] = reviewer
    try:
        label = app.datastore().save_label(image, str(upload), asked.get("tag", "final"), told)
    finally:
        upload.unlink(missing_ok=True)
    return {"image": image, "label": label}


@router.put("/datastore/review")
async def review(request: Request) -> Any:
    """Store that a person accepts or rejects the result of an image; what is amended is submitted as a label."""
    asked = query(request, image=_any_text)
    app, image = app_instance(), _image(asked.get("image"))
    fields = {"decision": choice(("accepted", "rejected")), "model": choice([*app.bundles]), **_WHO}
    told = rebuilt(fields, await body(request), "A review")
    if "decision" not in told:
        raise PyrasegError('A review needs its decision. Send {"decision": "accepted"} or "rejected".')
    if not isinstance(app.datastore(), DicomDatastore):
        raise PyrasegError("Reviews are of DICOM series. Files have no UIDs, and their names may be those of patients.")
    made = app.datastore().review(image, told["decision"], _reviewer(told), told.get("model"))
    return {"image": image, "decision": made.decision, "result": made.result.uid, "time": made.time}


#: How clients say who decides: by a field of ours, or by the name that 3D Slicer sends with each request.
_WHO = {"reviewer": text, "client_id": client}


def _reviewer(told: dict[str, Any]) -> str:
    """Return who decides, and take it out of what a client told."""
    named = [told.pop(field, "") for field in _WHO]
    return str(next(filter(None, named), app_instance().conf["reviewer"]))


def _file(path: str, what: str) -> Response:
    if not path or not Path(path).is_file():
        raise HTTPException(404, f"There is no such {what}. GET /datastore/?output=all lists them.")
    return FileResponse(path, filename=Path(path).name)


@router.put("/session/")
async def open_session(request: Request) -> Any:
    """Keep one image for inferences of a client; what is packed is not unpacked."""
    query(request)
    async with form(request, files=("files",), client_id=left_out) as sent:
        if "files" not in sent:
            raise PyrasegError("No image was sent. Send its file as the field files.")
        session = sessions.add(_kept(sent["files"], _suffixes()))
    return {"session_id": session, "session_info": {"name": session}}


@router.get("/session/{session}")
async def session_info(request: Request, session: str) -> Any:
    query(request)
    sessions.image(session)
    return {"name": session}


@router.delete("/session/{session}")
async def close_session(request: Request, session: str) -> Any:
    query(request)
    sessions.remove(session)
    return {"name": session}
