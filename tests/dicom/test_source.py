# SPDX-License-Identifier: Apache-2.0
"""What is turned off while broken headers are read is on again afterwards."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pydicom

from bundle.pyraseg.dicom.source import values_as_they_are


def test_validation_is_on_again_after_threads_that_turned_it_off():
    before = pydicom.config.settings.reading_validation_mode
    in_first, in_second, after_first = Event(), Event(), Event()

    def first():
        with values_as_they_are():
            in_first.set()
            in_second.wait(0.2)
        after_first.set()

    def second():
        in_first.wait()
        with values_as_they_are():
            in_second.set()
            after_first.wait(0.2)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert pydicom.config.settings.reading_validation_mode == before != pydicom.config.IGNORE
