# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's own client, which 3D Slicer has, on a server that asks for a token and encrypts."""

import base64
import json
import os
import subprocess
from pathlib import Path

import itk
import numpy as np
from PIL import Image

from tests.helpers.label_server import PYTHON, form, needs_server, refusal, served
from tests.tools.monai_label.test_access import SECRET, write_certificate
from tests.tools.publishing.test_elsewhere import draw

pytestmark = needs_server
NAME = "pyraseg_dermoscopy"
#: What the extension of 3D Slicer does, with the code that it does it by.
CLIENT = """
import json, shutil, sys
from monailabel.client import MONAILabelClient

url, token, model, image, mask, folder = sys.argv[1:]

def client(login=None):  # a new one for each request
    made = MONAILabelClient(url, tmpdir=folder, client_id="reader")
    made.update_auth(login)
    return made

def options(section):
    config = client(login).info()[section][model]["config"]
    return {name: own[0] if isinstance(own, list) else own for name, own in config.items()}

login = client().auth_token("reader", token)
told = {"enabled": client().auth_enabled(), "valid": [one.auth_valid_token() for one in (client(), client(login))]}
told["labels"] = client(login).info()["models"][model]["labels"]
told["sample"] = client(login).next_sample("first", {})["id"]
asked = {**options("models"), "result_extension": ".nrrd", "result_dtype": "uint8"}
result, params = client(login).infer(model, told["sample"], dict(asked))
told["result"], told["label_names"] = shutil.move(result, folder + "/result.nrrd"), params["label_names"]
session = client(login).create_session(image)["session_id"]
told["session"] = client(login).get_session(session)["name"] == session
result, _ = client(login).infer(model, "elsewhere", dict(asked), session_id=session)
told["of_session"] = shutil.move(result, folder + "/session.nrrd")
client(login).remove_session(session)
told["uploaded"] = client(login).upload_image(image, "new image")["image"]
names = {"label_info": [{"name": "lesion", "idx": 255}]}
told["saved"] = client(login).save_label("new image", mask, params=names)["label"]
told["downloaded"] = client(login).download_label("new image", "final")
told["objects"] = sorted(client(login).datastore()["objects"])
client(login).train_start(model, {**options("trainers"), "max_epochs": 1})
client(login).train_status()
client(login).train_stop()
print("told", json.dumps(told))
"""


def test_3d_slicer_works_by_token_and_nobody_without(package, tmp_path):
    for seed in range(3):
        draw(tmp_path / "study", seed, (120, 90))
    studies, masks = tmp_path / "study" / "images", tmp_path / "study" / "masks"
    new = (studies / "c2.jpg").rename(tmp_path / "c2.jpg")
    certificate, key = write_certificate(tmp_path, "localhost", "label.example.org")
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    options = ["--token-file", token, "--certificate", certificate, "--key", key, "--host", "0.0.0.0", "--verbose"]
    app = tmp_path / "app"
    with served([package.zip], studies, app, samples=8, options=list(map(str, options)), token=SECRET) as server:
        for path in (
            "/info/",
            "/datastore/?output=all",
            "/datastore/image?image=c0",
            "/ohif/",
            "/elsewhere",
            "/auth/token/valid",
        ):
            for held in ("", "Bearer", f"Bearer {SECRET[:-1]}", f"Basic {base64.b64encode(b'reader:').decode()}"):
                assert refusal(lambda path=path, held=held: server.ask("GET", path, Authorization=held)) == 401
        assert (
            refusal(lambda: server.ask("POST", "/auth/token", *form({"password": b"another"}), Authorization="")) == 401
        )
        assert refusal(lambda: server.ask("GET", "/info/", Host="elsewhere.example")) == 403
        by_password = "Basic " + base64.b64encode(f"reader:{SECRET}".encode()).decode()
        assert b"OHIF" in server.ask("GET", "/ohif/viewer", Authorization=by_password, Host="label.example.org")
        processes = "".join(path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline"))
        assert str(certificate) in processes and SECRET not in processes

        (tmp_path / "work").mkdir()
        url = server.url.replace("127.0.0.1", "localhost")
        arguments = [url, SECRET, NAME, new, masks / "c2_segmentation.png", tmp_path / "work"]
        done = subprocess.run(
            [PYTHON, "-c", CLIENT, *map(str, arguments)], capture_output=True, text=True, timeout=600,
            env={**os.environ, "REQUESTS_CA_BUNDLE": str(certificate)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.rpartition("told ")[2])
        assert (told["enabled"], told["valid"], told["session"]) == (True, [False, True], True)
        assert told["labels"] == told["label_names"] == {"lesion": 1}
        for file, image in (("result", told["sample"]), ("of_session", "new image")):
            (tmp_path / "own.png").write_bytes(server.infer(NAME, image.replace(" ", "%20")))
            own, found = np.asarray(Image.open(tmp_path / "own.png")), itk.array_from_image(itk.imread(told[file]))
            assert own.any()
            np.testing.assert_array_equal(found.squeeze(), own)
        saved = np.asarray(Image.open(told["downloaded"]))
        np.testing.assert_array_equal(saved, np.asarray(Image.open(masks / "c2_segmentation.png")) > 0)
        assert (told["uploaded"], told["saved"], told["objects"]) == (
            "new image",
            "new image",
            ["c0", "c1", "new image"],
        )
        left = {path.name for path in (app / "temporary").iterdir() if path.suffix in (".png", ".jpg", ".nrrd")}
        assert left == set()
    logs = [path.read_text(errors="replace") for path in app.rglob("*") if path.suffix in (".txt", ".log")]
    assert len(logs) >= 2 and not any(SECRET in log for log in logs)
