# SPDX-License-Identifier: Apache-2.0
"""A real label server refuses each kind of request that MONAI Label was open to, and nothing is left behind.

What is sent is harmless: a sum in place of code, a name that leads to a folder of the test.
"""

import io
import json
import time
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.helpers.label_server import FOREIGN, Server, form, needs_server, refusal, served, write_foreign
from tests.tools.publishing.test_elsewhere import draw

pytestmark = needs_server
OURS = "pyraseg_dermoscopy"
#: What MONAI's configs would compute or look up.
TEXTS = ("$1 + 1", "@bundle_root", "%train.json", "$'a' + 'b'")
#: Ways to another folder.
PATHS = (
    *("../masks/c0_segmentation", "..", ".", "../../study/masks/c0_segmentation.png", "..\\masks", "c0\0", "c0/../c0"),
    *("%2e%2e/masks", "//c0", "~", ""),
)
#: What MONAI Label has and clients here have no need of.
ELSEWHERE = (
    *("/logs/?lines=5", "/logs/gpu", "/openapi.json", "/docs", "/", "/static/ohif/index.html", "/favicon.ico"),
    *("/proxy/dicom/http%3A%2F%2F127.0.0.1%3A1", "/proxy/dicom/qido/studies"),
)


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies below a folder, but for logs and locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".log", ".txt", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix != ".pyc"}


def archive(folder: Path, member: str) -> Path:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr(member, "x = 1")
    path = folder / f"sent{len(list(folder.iterdir()))}.zip"
    path.write_bytes(content.getvalue())
    return path


def of_models(server: Server, model: str, mask: Path) -> dict[str, Callable[[], bytes]]:
    """Return requests for a model by what they are about."""

    def infer(**params: object) -> Callable[[], bytes]:
        return lambda: server.infer(model, "c0", **params)

    def post(path: str, **params: object) -> Callable[[], bytes]:
        return lambda: server.ask("POST", path, json.dumps(params).encode())

    asked = {}
    for text in TEXTS:
        for name in ("device", "note", "mode", "model_filename", "result_extension", "run_id", text):
            asked[f"inference, {name} is {text}"] = infer(**{name: text})
            asked[f"training, {name} is {text}"] = post(f"/train/{model}", **{name: text})
            asked[f"trainings, {name} is {text}"] = post("/train/", **{model: {name: text}})
            asked[f"batch, {name} is {text}"] = post(f"/batch/infer/{model}", **{name: text})
        asked[f"scoring by {text}"] = post(f"/scoring/{model}", device=text)
        for nested in ([text], {text: text}, [[text]], {"a": [text]}):
            asked[f"inference, nested {nested}"] = infer(device=nested)
            asked[f"training, nested {nested}"] = post(f"/train/{model}", model_filename=nested)
    for name in (
        "tracking",
        "tracking_uri",
        "bundle_path",
        "bundle_root",
        "train#trainer",
        "config_file",
        "image",
        "local_rank",
    ):
        asked[f"training, {name}"] = post(f"/train/{model}", **{name: str(mask)})
        asked[f"inference, {name}"] = infer(**{name: str(mask)})
    asked["training, gpus"] = post(f"/train/{model}", gpus="all; x")
    asked["batch, images"] = post(f"/batch/infer/{model}", images=[str(mask)])
    asked["batch, images in the address"] = post(f"/batch/infer/{model}?images={quote(str(mask))}")
    asked["training, at once"] = post(f"/train/{model}?run_sync=true")
    for path in PATHS:
        asked[f"inference, image {path!r}"] = lambda path=path: server.infer(model, quote(path, safe=""))
        asked[f"inference, model_filename {path!r}"] = infer(model_filename=f"{path}/model.pt")
        asked[f"inference, result_extension {path!r}"] = infer(result_extension=f"/{path}/outside.png")
        asked[f"inference, label_tag {path!r}"] = infer(save_label=True, label_tag=path)
        asked[f"inference, session {path!r}"] = lambda path=path: server.ask(
            "POST", f"/infer/{model}?session_id={quote(path, safe='')}", *form({})
        )
    asked["inference, image absolute"] = lambda: server.infer(model, quote(str(mask), safe=""))
    asked["inference, DICOM SEG"] = lambda: server.ask("POST", f"/infer/{model}?image=c0&output=dicom_seg", *form({}))
    asked["inference, scribbles"] = lambda: server.ask("POST", f"/infer/{model}?image=c0", *form({}, label=mask))
    asked["inference, module"] = lambda: server.ask("POST", f"/infer/{model}", *form({}, file=Path(__file__)))
    for method in ("PUT", "GET", "DELETE"):
        asked[f"{method} of the model"] = lambda method=method: server.ask(
            method, f"/model/{model}", *form({}, file=mask)
        )
    asked["model info"] = lambda: server.ask("GET", f"/model/info/{model}")
    asked["whole slides"] = lambda: server.ask("POST", f"/infer/wsi/{model}?image=c0", b"{}")
    return asked


def of_files(server: Server, mask: Path, folder: Path) -> dict[str, Callable[[], bytes]]:
    """Return requests for files by what they are about."""

    def image(path: str, file: Path = mask) -> Callable[[], bytes]:
        return lambda: server.ask("PUT", f"/datastore/image?image={quote(path, safe='')}", *form({}, file=file))

    asked = {}
    for path in PATHS:
        there = quote(path, safe="")
        asked[f"image to {path!r}"] = image(path)
        asked[f"image from {path!r}"] = lambda there=there: server.ask("GET", f"/datastore/image?image={there}")
        asked[f"label to {path!r}"] = lambda there=there: server.ask(
            "PUT", f"/datastore/label?image={there}", *form({}, label=mask)
        )
        asked[f"label of tag {path!r}"] = lambda there=there: server.ask(
            "PUT", f"/datastore/label?image=c0&tag={there}", *form({}, label=mask)
        )
        asked[f"label from {path!r}"] = lambda there=there: server.ask(
            "GET", f"/datastore/label?label={there}&tag=final"
        )
        asked[f"label from tag {path!r}"] = lambda there=there: server.ask(
            "GET", f"/datastore/label?label=c0&tag={there}"
        )
        asked[f"session {path!r}"] = lambda there=there: server.ask("GET", f"/session/{there or '%20'}")
        asked[f"session {path!r} ends"] = lambda there=there: server.ask("DELETE", f"/session/{there or '%20'}")
        asked[f"page of OHIF {path!r}"] = lambda there=there: server.ask("GET", f"/proxy/dicom/wado/{there}")
    for text in TEXTS:
        asked[f"image called {text}"] = image(text)
    asked["image in place of another"] = image("c0")
    asked["module"] = image("module", Path(__file__))
    asked["image without a name"] = lambda: server.ask("PUT", "/datastore/image", *form({}, file=mask))
    asked["image removed"] = lambda: server.ask("DELETE", "/datastore/image?id=c1")
    asked["label removed"] = lambda: server.ask("DELETE", "/datastore/label?id=c1&tag=final")
    asked["image info"] = lambda: server.ask("PUT", "/datastore/image/info?image=c0", *form({"info": b'{"path": "/"}'}))
    asked["label info"] = lambda: server.ask("PUT", "/datastore/label/info?label=c0&tag=final", *form({"info": b"{}"}))
    asked["label with params"] = lambda: server.put_label("c0", mask, params={"label_names": {}})
    asked["all files"] = lambda: server.ask("GET", "/datastore/dataset")
    asked["paths of files"] = lambda: server.ask("GET", "/datastore/?output=train")
    for member in ("../up.txt", "module.py", "/up.txt"):
        packed = archive(folder, member)
        asked[f"session of an archive, {member}"] = lambda packed=packed: server.ask(
            "PUT", "/session/", *form({}, files=packed)
        )
        asked[f"session to unpack, {member}"] = lambda packed=packed: server.ask(
            "PUT", "/session/?uncompress=true", *form({}, files=packed)
        )
    asked["session of a module"] = lambda: server.ask("PUT", "/session/", *form({}, files=Path(__file__)))
    asked["session that lasts"] = lambda: server.ask("PUT", "/session/?expiry=99999999", *form({}, files=mask))
    for path in ELSEWHERE:
        asked[f"GET {path}"] = lambda path=path: server.ask("GET", path)
    asked["reload"] = lambda: server.ask("POST", "/reload", b"")
    asked["no JSON"] = lambda: server.ask("POST", f"/train/{OURS}", b"{")
    asked["JSON that is no object"] = lambda: server.ask("POST", f"/train/{OURS}", b"[1]")
    asked["no number"] = lambda: server.ask("POST", f"/train/{OURS}", b'{"val_split": NaN}')
    asked["nested without end"] = lambda: server.ask("POST", f"/train/{OURS}", b"[" * 100_000)
    asked["twice"] = lambda: server.ask("GET", "/datastore/image?image=c0&image=c1")
    return asked


def test_each_kind_is_refused_for_a_bundle_of_ours_and_of_another_maker(package, tmp_path):
    for seed in range(2):
        draw(tmp_path / "study", seed, (120, 90))
    mask = tmp_path / "study" / "masks" / "c0_segmentation.png"
    (tmp_path / "sent").mkdir()
    foreign = write_foreign(tmp_path, trainable=True)
    with served([package.zip, foreign], tmp_path / "study" / "images", tmp_path / "app", samples=8) as server:
        assert {OURS, FOREIGN} == set(server.info()["models"]) == set(server.info()["trainers"])
        of_both = {
            f"{model}: {what}": ask for model in (OURS, FOREIGN) for what, ask in of_models(server, model, mask).items()
        }
        asked = {**of_both, **of_files(server, mask, tmp_path / "sent")}
        before = contents(tmp_path)
        told = {what: answer(ask) for what, ask in asked.items()}
        assert {what: one for what, one in told.items() if one[0] not in (400, 401, 403, 404, 405)} == {}
        for what, (_, detail) in told.items():
            assert detail and "Traceback" not in detail and "unexpected" not in detail, what
            assert not {"2", "ab"} & set(detail.split()), f"{what}: {detail}"  # what the texts would give
        time.sleep(2)  # until what would run in the background has begun
        assert contents(tmp_path) == before
        for path in ("/train/", "/batch/infer", "/scoring/"):  # nothing was started
            assert refusal(lambda path=path: server.ask("GET", path)) == 404
        for path in ("/info/", "/auth/", "/datastore/", "/datastore/image", "/train/", "/batch/infer"):
            assert refusal(lambda path=path: server.ask("GET", f"{path}?unlisted=1")) == 400
        assert server.infer(OURS, "c0")  # and it still works
        assert server.infer(FOREIGN, "c0", note="plain", mode="max", result_extension=".nii.gz")
        told = server.run("/train/", f"/train/{FOREIGN}", device="cpu", level=0.75, mode="max", note="plain")
        assert "trained on cpu with {'level': 0.75, 'mode': 'max', 'note': 'plain'}" in told


def answer(ask: Callable[[], bytes]) -> tuple[int, str]:
    """Return the status of a request and what it was told."""
    try:
        return 200, repr(ask()[:80])
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["detail"]
