# SPDX-License-Identifier: Apache-2.0
"""Reviews are added, stay whole whatever happens, and are read back as they were."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from bundle.pyraseg.core import DiskError, PyrasegError
from bundle.pyraseg_tools.review.log import ReviewLog, latest
from tests.helpers.commands import ROOT
from tests.helpers.reviews import reviewed

#: A program that adds reviews until it is killed, and tells after each that it is there.
ADDING = """
import sys
from dataclasses import replace
from pathlib import Path
from bundle.pyraseg_tools.review.log import ReviewLog
from tests.helpers.reviews import reviewed

(one,) = reviewed("+")
for number in range(10**6):
    ReviewLog(Path(sys.argv[1])).add(replace(one, reviewer=f"{sys.argv[2]} {number}"))
    print(number, flush=True)
"""


def test_what_was_added_is_read_and_nothing_before_it_changes(tmp_path):
    log, reviews = ReviewLog(tmp_path / "new" / "reviews.jsonl"), reviewed("+~-")
    before = b""
    for review in reviews:
        log.add(review)
        content = log.path.read_bytes()
        assert content.startswith(before) and content.endswith(b"\n")
        before = content
    assert log.read() == reviews
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert [json.loads(line)["decision"] for line in content.splitlines()] == ["accepted", "amended", "rejected"]


@pytest.mark.parametrize("length", [1, 40, 150])
def test_a_line_that_was_cut_short_is_left_out_and_told(tmp_path, caplog, length):
    log, (first, second, third) = ReviewLog(tmp_path / "reviews.jsonl"), reviewed("+~-")
    log.add(first)
    whole = log.path.read_bytes()
    log.add(second)
    log.path.write_bytes(log.path.read_bytes()[: len(whole) + length])
    assert log.read() == [first]
    log.add(third)
    assert log.read() == [first, third]
    assert "Line 2 of" in caplog.text and "cut short" in caplog.text


def test_two_programs_that_are_killed_lose_nothing_that_they_told(tmp_path):
    path = tmp_path / "reviews.jsonl"
    programs = [
        subprocess.Popen([sys.executable, "-c", ADDING, str(path), name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    for program in programs:
        for _ in range(20):
            program.stdout.readline()
    for program in programs:
        program.send_signal(signal.SIGKILL)
    told = {
        f"{name} {number}"
        for name, program in zip(("one", "other"), programs, strict=True)
        for number in range(20 + len([line for line in program.communicate()[0].splitlines() if line]))
    }
    found = [review.reviewer for review in ReviewLog(path).read()]
    assert told <= set(found) and len(found) == len(set(found)) <= len(told) + 2


def test_no_file_is_no_review_and_another_file_is_refused(tmp_path):
    assert ReviewLog(tmp_path / "reviews.jsonl").read() == []
    for content, message in [
        ("no JSON", "holds no review"),
        ('{"format": 2}', "is of format 2"),
        ('{"format": 1, "decision": "accepted"}', "is no review"),
        (reviewed("+")[0].line().replace("accepted", "liked"), "cannot be"),
        ("[]", "is no review"),
    ]:
        (tmp_path / "other").write_text(content + "\n")
        with pytest.raises(PyrasegError, match=message):
            ReviewLog(tmp_path / "other").read()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "reviews.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskError, match="not stored"):
        ReviewLog(tmp_path / "reviews.jsonl").add(reviewed("+")[0])


def test_the_last_decision_about_a_result_is_its_state():
    first, second, third = reviewed("+~-")
    changed = replace(first, decision="rejected", time="2026-02-01T08:00:00+00:00")
    assert latest([first, second, third, changed]) == [second, third, changed]
