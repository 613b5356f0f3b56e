# SPDX-License-Identifier: Apache-2.0
"""Clicks through a real MONAI Label server, sent as 3D Slicer sends them, correct what the runtime corrects."""

import json
import subprocess
import urllib.error
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.commands.export import main as export
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.runtime.click_model import ClickModel
from bundle.pyraseg.runtime.click_session import ClickSession
from bundle.pyraseg_tools.publishing.packing import pack
from tests.helpers.commands import ROOT
from tests.helpers.dicom_files import write_series
from tests.helpers.drawn_photographs import draw
from tests.helpers.label_server import PYTHON, Server, form, needs_server, refusal, served
from tests.helpers.runtime_series import TURNED

pytestmark = needs_server
#: What the extension of 3D Slicer 0.8.5 does after each click, with the client that it does it by: points are whole
#: numbers in the file that it has, those of the model's options that it shows are added, and the result is NRRD.
CLIENT = """
import json, shutil, sys
from monailabel.client import MONAILabelClient

url, folder, model, image, *requests = sys.argv[1:]
for number, points in enumerate(map(json.loads, requests)):
    client = MONAILabelClient(url, tmpdir=folder, client_id="user-xyz")
    info = client.info()
    config = info["models"][model]["config"]
    if info["models"][model]["type"] == "deepedit":  # a list for every label that any model of the server has
        points = {**{name: [] for name in info["labels"]}, **points}
    params = {**points, **{name: own[0] if isinstance(own, list) else own for name, own in config.items()}}
    params.update({"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False})
    result, told = client.infer(model, image, params)
    shutil.move(result, f"{folder}/{number}.nrrd")
    print("told", json.dumps(told["label_names"]))
"""


def as_slicer(server: Server, folder: Path, model: str, image: str, *points: dict[str, Any]) -> list[np.ndarray]:
    """Return the label maps of requests with points, as ITK reads them: (rows, columns), or (slices, rows, columns)."""
    folder.mkdir(exist_ok=True)
    command = [PYTHON, "-c", CLIENT, server.url, folder, model, image, *map(json.dumps, points)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [itk.array_from_image(itk.imread(folder / f"{number}.nrrd")) for number in range(len(points))]


def session(task: str, image: Path, folder: Path) -> ClickSession:
    """Return what the runtime makes of an image, with an ONNX of the same weights."""
    path = folder / f"{task}.onnx"
    if not path.is_file():
        export([task, "--output-dir", str(folder)])
    return ClickSession(ClickModel(path, threads=1), str(image))


def test_a_photograph_is_corrected_as_by_the_runtime(tmp_path):
    zipped = pack(ROOT, "dermoscopy_click", tmp_path)
    name, size = "pyraseg_dermoscopy_click", (220, 150)
    draw(tmp_path, 0, size)
    own = session("dermoscopy_click", tmp_path / "images" / "c0.jpg", tmp_path)
    automatic = own.labels().copy()
    first, second = [152, 52, 0], [100, 80, 0]  # beside the lesion, and in it
    assert automatic[80, 100] and not automatic[52, 152]
    with served([zipped], tmp_path / "images", tmp_path / "app", samples=8) as server:
        models = server.info()["models"]
        assert {model: told["type"] for model, told in models.items()} == {
            name: "segmentation", f"{name}_deepgrow": "deepgrow", f"{name}_deepedit": "deepedit",
        }  # fmt: skip
        assert models[f"{name}_deepgrow"]["labels"] == {"lesion": 1} and models[f"{name}_deepgrow"]["dimension"] == 2
        assert models[f"{name}_deepedit"]["labels"] == {"background": 0, "lesion": 1}

        grown = as_slicer(
            server, tmp_path / "grown", f"{name}_deepgrow", "c0",
            {"label": "lesion", "foreground": [], "background": []},
            {"label": "lesion", "foreground": [first], "background": []},
            {"label": "lesion", "foreground": [first], "background": [second]},
            {"label": "lesion", "foreground": [first], "background": []},
        )  # fmt: skip
        edited = as_slicer(
            server, tmp_path / "edited", f"{name}_deepedit", "c0",
            {"label": "lesion", "lesion": [first]},
            {"label": "background", "lesion": [first], "background": [second]},
        )  # fmt: skip
        own.refine([(152, 52, True)])
        once = own.labels().copy()
        own.refine([(100, 80, False)])
        twice = own.labels().copy()
        assert (once != automatic).any() and (twice != once).any()
        for found, truth in zip((*grown, *edited), (automatic, once, twice, once, once, twice), strict=True):
            np.testing.assert_array_equal(found.squeeze(), truth)

        (tmp_path / "plain.png").write_bytes(server.infer(name, "c0"))  # as it is without any clicks
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "plain.png")), automatic)
        for model, points, said in (
            (name, {"foreground": [first]}, "takes no field 'foreground'"),
            (f"{name}_deepgrow", {"foreground": [[220, 3, 0]]}, "outside the image of 220 x 150 x 1 voxels"),
            (f"{name}_deepgrow", {"foreground": [[3, 3, 1]]}, "outside the image"),
            (f"{name}_deepgrow", {"foreground": [[-1, 3, 0]]}, "Give a list of at most 1000 voxels"),
            (f"{name}_deepgrow", {"foreground": [first] * 1001}, "Give a list of at most 1000 voxels"),
            (f"{name}_deepgrow", {"label": "nevus", "foreground": [first]}, "label is 'nevus'. Give one of 'lesion'"),
            (f"{name}_deepgrow", {"foreground": [first], "roi": [0, 9, 0, 9, 0, 0]}, "roi means nothing"),
            (f"{name}_deepgrow", {"foreground": [first], "save_label": True}, "Leave save_label out"),
            (f"{name}_deepedit", {"foreground": [first]}, "Points of a label have its name as their field: lesion"),
            (f"{name}_deepedit", {"nevus": [first]}, "takes no field 'nevus'"),
        ):
            assert said in refusal_of(server, model, points)
        body, kind = form({"params": b'{"foreground": [[1e999, 2, 0]]}'})
        path = f"/infer/{name}_deepgrow?image=c0&output=image"
        assert refusal(lambda: server.ask("POST", path, body, kind)) == 400
    assert "c0.jpg" not in (tmp_path / "app" / "log.txt").read_text()


def refusal_of(server: Server, model: str, points: dict[str, Any]) -> str:
    """Return what the server says of a request that it refuses."""
    with pytest.raises(urllib.error.HTTPError) as error:
        server.infer(model, "c0", **points)
    assert error.value.code == 400
    return json.loads(error.value.read())["detail"]


def test_a_series_is_corrected_as_by_the_runtime(tmp_path):
    """Clients have it as NIfTI, in which the clicked voxels are found by the value that they alone have."""
    zipped = pack(ROOT, "heart_click", tmp_path)
    name, marks = "pyraseg_heart_click", (2000, 2100)
    y, x = np.indices((110, 130))
    values = np.random.default_rng(0).normal(90, 12, (7, 110, 130))
    for number, plane in enumerate(values):  # bright, and further to one corner with each slice
        plane[((x - 50 - 3 * number) / 24) ** 2 + ((y - 60 + 2 * number) / 16) ** 2 < 1] += 250
    values[4, 54, 62], values[3, 80, 20] = marks
    options: dict[str, Any] = {"orientation": TURNED, "spacing": (1.5, 1.2), "slice_step": -8.0}
    write_series(tmp_path / "series" / "one", values.astype(np.int16), Modality="MR", **options)
    own = session("heart_click", tmp_path / "series" / "one", tmp_path)
    places = [np.argwhere([own.pixels(k) == mark for k in range(7)])[0].tolist() for mark in marks]
    clicks = [(number, (column, row)) for number, row, column in places]
    uid = read_series(tmp_path / "series" / "one").series_uid
    automatic = [own.labels(k).copy() for k in range(7)]
    with served([zipped], tmp_path / "series", tmp_path / "app", samples=8) as server:
        (tmp_path / "client.nii.gz").write_bytes(server.ask("GET", f"/datastore/image?image={uid}"))
        client = np.asarray(nibabel.load(tmp_path / "client.nii.gz").dataobj)
        first, second = (np.argwhere(client == mark)[0].tolist() for mark in marks)
        found = as_slicer(
            server, tmp_path / "grown", f"{name}_deepgrow", uid,
            {"label": "cavity", "foreground": [], "background": []},
            {"label": "cavity", "foreground": [first], "background": []},
            {"label": "cavity", "foreground": [first, second], "background": []},
        )  # fmt: skip
        own.refine([(*clicks[0][1], True)], number=clicks[0][0])
        once = [own.labels(k).copy() for k in range(7)]
        own.refine([(*clicks[1][1], True)], number=clicks[1][0])
        twice = [own.labels(k).copy() for k in range(7)]
        assert np.not_equal(twice, once).any()
        for result, truth in zip(found, (automatic, once, twice), strict=True):
            np.testing.assert_array_equal(result, truth)
