# SPDX-License-Identifier: Apache-2.0
"""Other readers find the same values in the same places, as the documentation says."""

import pytest

from scripts.write_dicom_forms import PAGE
from tests.helpers.corpus.form import Form
from tests.helpers.corpus.forms import FORMS, row, tables_in
from tests.helpers.corpus.others import agreeing


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_page_names_the_readers_that_agree(form: Form) -> None:
    assert row(form, agreeing(form)) in tables_in(PAGE.read_text(encoding="utf-8")).splitlines()
