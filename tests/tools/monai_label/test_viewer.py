# SPDX-License-Identifier: Apache-2.0
"""OHIF, which comes with MONAI Label, in a real browser on a real server and a real PACS."""

import io
import json

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series
from tests.helpers import dicom_files as files
from tests.helpers.browser import DESKTOP, browsing
from tests.helpers.label_server import needs_server, on_pacs, refusal, served

pytestmark = needs_server
#: WebGL without a graphics card.
SOFTWARE_RENDERING = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def colored(page: Page) -> int:
    """Return how many pixels of the images are neither gray nor of the blue that OHIF writes in."""
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    red, _, blue = np.moveaxis(picture[100:800, 290:900], -1, 0)
    return int((red - blue > 30).sum())


def test_ohif_segments_a_series_and_sees_no_other_study(volume_package, pacs, tmp_path):
    write_series(tmp_path / "ct", phantom_case(2024, 0, size=64), seed=2024, number=1)
    pacs.add((tmp_path / "ct").iterdir())
    other = files.uid("study", "other")
    pixels = np.zeros((3, 16, 16), np.int16)
    uids = {
        "StudyInstanceUID": other,
        "SeriesInstanceUID": files.uid("series", "other"),
        "PatientName": "Other^Patient",
    }
    pacs.add(files.write_series(tmp_path / "mr", pixels, Modality="MR", **uids))
    for number in range(3):  # a PACS that counts them first would fill a page with them
        uids = {"StudyInstanceUID": files.uid("study", number), "SeriesInstanceUID": files.uid("series", number)}
        pacs.add(files.write_series(tmp_path / f"mr{number}", pixels, Modality="MR", **uids))
    with served([volume_package], app=tmp_path / "app", **on_pacs(pacs, "CT")) as server:
        study = read_series(tmp_path / "ct").study_uid
        listed = json.loads(server.ask("GET", "/proxy/dicom/qido/studies"))
        assert [item["0020000D"]["Value"] for item in listed] == [[study]]
        assert json.loads(server.ask("GET", "/proxy/dicom/qido/studies?limit=1&offset=0")) == listed
        assert json.loads(server.ask("GET", "/proxy/dicom/qido/studies?limit=1&offset=1")) == []
        for status, method, path in (
            (403, "GET", f"/proxy/dicom/wado/studies/{other}/metadata"),
            (403, "GET", "/proxy/dicom/qido/series"),
            (403, "GET", f"/proxy/dicom/wado/studies/{study}/../{other}/metadata"),
            (403, "GET", f"/proxy/dicom/wado/studies/{study}/%252e%252e/{other}/metadata"),
            (400, "GET", "/proxy/dicom/qido/studies?Modality=CT%00"),
            (400, "GET", "/proxy/dicom/qido/studies?%24x=CT"),
            (404, "GET", f"/proxy/dicom/stow/studies/{study}"),
            (405, "POST", f"/proxy/dicom/stow/studies/{study}"),
            (405, "POST", "/proxy/dicom/qido/studies"),
        ):
            body = b"" if method == "POST" else None
            assert refusal(lambda method=method, path=path, body=body: server.ask(method, path, body)) == status

        with browsing(*SOFTWARE_RENDERING) as browser:
            page = browser.new_page(viewport=DESKTOP)
            page.goto(f"{server.url}/ohif/")
            expect(page.get_by_text("Phantom, 01").first).to_be_visible()
            expect(page.get_by_text("Other, Patient")).to_have_count(0)
            page.get_by_text("Confirm and Hide").click()
            page.get_by_text("Phantom, 01").first.click()
            page.get_by_text("MONAI Label", exact=True).first.click()
            address = page.locator("input[value^=http]")
            expect(address).to_be_visible(timeout=120_000)
            expect(page.get_by_text("Abdomen", exact=False).nth(2)).to_be_visible(timeout=120_000)
            before = colored(page)
            address.fill(f"{server.url}/")
            address.locator("xpath=following::button[1]").click()
            page.get_by_text("Auto-Segmentation").click()
            with page.expect_response(lambda answer: "/infer/" in answer.url, timeout=120_000) as answer:
                page.get_by_title("Run Segmentation", exact=True).click()
            assert answer.value.status == 200
            expect(page.get_by_text("Running Segmentation - Successful")).to_be_visible(timeout=60_000)
            page.wait_for_timeout(3000)  # until it is drawn
            assert colored(page) > before + 200
