# SPDX-License-Identifier: Apache-2.0
"""The command `pyraseg click`, from its first line to its last."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bundle.pyraseg.commands.console import main
from bundle.pyraseg.core.files import begin_run
from bundle.pyraseg_tools.click.labeling import key_of
from tests.helpers.commands import ROOT
from tests.tools.click.conftest import photo


@pytest.fixture(autouse=True)
def ended():
    yield
    begin_run()


@pytest.mark.slow
def test_a_folder_is_served_until_it_is_interrupted(photographs, tmp_path):
    for number in (1, 2):
        photo(tmp_path / "photos" / f"{number}.png", sure=number / 2)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    command = [sys.executable, "-m", "bundle.pyraseg", "click", str(tmp_path / "photos"), "--model",
               str(photographs.path), "--log", str(tmp_path / "log.csv"), "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("2 image(s), 0 labeled already") and "photos_labels" in lines[0]
        address, token = re.search(r"(http://127\.0\.0\.1:\d+/)#(\S+)", lines[1]).groups()

        def ask(path: str, body: object = None) -> dict:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            data = None if body is None else json.dumps(body).encode()
            with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=20) as answer:
                return json.load(answer)

        state = ask("api/state")
        assert [image["name"] for image in state["images"]] == ["1", "2"]
        assert state["structures"][1]["name"] == "lesion"
        ask("api/open", {"image": 0})
        assert ask("api/save", {})["file"] == "1.png"
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert second.returncode == 1 and "Another labeling writes to" in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "broken" in errors and "left out" in errors
    assert (
        "1 of 2 labeled" in output
        and "--image-pattern 'photos/{case}' --label-pattern 'photos_labels/{case}'" in output
    )
    assert (tmp_path / "photos_labels" / "1.png").is_file() and key_of("1") in (tmp_path / "log.csv").read_text()


def test_what_cannot_be_served_is_refused(tmp_path, capsys):
    images = photo(tmp_path / "images" / "one.png", sure=1).parent
    for words, text in [
        ([str(tmp_path / "none")], "none"),
        ([str(images), "--model", "nothing"], "There is no exported model 'nothing' that takes clicks"),
        ([str(images), "--model", str(ROOT / "models" / "dermoscopy_fast.int8.onnx")], "takes no clicks"),
        ([str(images), "--labels", str(images)], "folder of inputs and of results"),
    ]:
        assert main(["click", *words]) == 1
        assert text in capsys.readouterr().err, words
    assert Path(images, "one.png").is_file()
