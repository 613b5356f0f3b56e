# SPDX-License-Identifier: Apache-2.0
"""Series in the forms that scanners write are read exactly, or refused with advice that works."""

import logging
from pathlib import Path

import pytest

from bundle.pyraseg.core import PyrasegError
from tests.helpers.corpus.form import Form, is_same
from tests.helpers.corpus.forms import FORMS, row, tables_in
from tests.helpers.corpus.readers import ours, read

#: Forms that were once wrong, or refused without a way on.
ONCE_WRONG = (
    "12 bits at the upper end of the word",
    "Enhanced MR, diffusion directions",
    "Enhanced MR, told apart by the indices of dimensions alone",
    "MR, the same, numbered in another order in each place",
    "MR, three attributes differ, numbered in any order",
    "SPECT of a beating heart",
)
#: These, and every third form, are read in every run of the tests.
some = pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[] if number % 3 == 0 or form.name in ONCE_WRONG else pytest.mark.slow)
        for number, form in enumerate(FORMS)
    ],
    ids=str,
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "dicom.md"


@some
def test_it_is_read_exactly_or_refused_with_advice_that_works(
    form: Form, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source, work = tmp_path / "in", tmp_path / "work"
    stacks = form.write(source)
    if not form.refused:
        found = ours(source, **form.options)
        assert len(found) == len(stacks)
        assert all(any(is_same(stack, meant) for stack in found) for meant in stacks)
    else:
        with pytest.raises(PyrasegError) as error:
            ours(source)
        message = str(error.value)
        assert all(words in message for words in form.refused), message
        assert "Secret" not in message and "SECRET" not in message
        assert form.remedy is not None, f"{form} is refused without a remedy"
        work.mkdir()
        found = [read(path, **options) for path, options in form.remedy(source, message, work)]
        assert found
        assert all(any(is_same(stack, meant) for meant in stacks) for stack in found)
    assert form.warns in caplog.text
    assert "Secret" not in caplog.text and "SECRET" not in caplog.text


def test_the_page_has_every_form() -> None:
    tables = tables_in(PAGE.read_text(encoding="utf-8"))
    missing = [form.name for form in FORMS if row(form) not in tables]
    assert not missing, f"run python -m scripts.write_dicom_forms: {missing}"
    assert tables.count("\n| ") - tables.count("| written by |") + 1 == len(FORMS)


def test_forms_have_names_of_their_own() -> None:
    names = [form.name for form in FORMS]
    assert len(set(names)) == len(names) >= 60 and set(ONCE_WRONG) <= set(names)
