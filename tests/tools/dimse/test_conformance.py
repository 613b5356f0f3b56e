# SPDX-License-Identifier: Apache-2.0
"""The conformance statement says what the program does, and what it says of UIDs is what pydicom's dictionary has."""

import re

from pydicom.uid import UID_dictionary

from bundle.pyraseg_tools.dimse import IMAGE_SYNTAXES, IMAGES, RESULT_SYNTAXES, RESULTS, SPOKEN
from scripts import write_conformance


def test_the_statement_is_current():
    assert write_conformance.FILE.read_text() == write_conformance.text(), write_conformance.__doc__


def test_every_uid_has_its_name_and_its_kind():
    rows = re.findall(r"^\| (.+?) \| (1\.2\.840\.10008[.\d]+) \|", write_conformance.text(), re.MULTILINE)
    assert len(rows) >= len(IMAGES) + len(IMAGE_SYNTAXES) + len(RESULTS) + len(RESULT_SYNTAXES)
    for uids, kind in ((IMAGES + RESULTS, "SOP Class"), (IMAGE_SYNTAXES + RESULT_SYNTAXES, "Transfer Syntax")):
        for uid in uids:
            name = write_conformance.NAMES.get(str(uid), UID_dictionary.get(str(uid), ("",))[0])
            assert (name, str(uid)) in rows
            assert str(uid) in write_conformance.NAMES or UID_dictionary[str(uid)][1] == kind
    for one in SPOKEN:
        assert one.sop_class is None or UID_dictionary[str(one.sop_class)][1] in ("SOP Class", "Meta SOP Class")
