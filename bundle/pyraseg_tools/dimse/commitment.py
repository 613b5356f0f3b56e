# SPDX-License-Identifier: Apache-2.0
"""Storage commitment, push model (PS3.4 J): an archive vouches for objects, now, later, or over another association."""

import threading
import time
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.events import Event

#: Answers to an N-EVENT-REPORT (PS3.7 10.1.1.1.8).
TAKEN, NO_SUCH_EVENT, INVALID = 0x0000, 0x0113, 0x0115
#: Types of the event (PS3.4 J.3.3): all objects are safe, or some are not.
ALL_SAFE, SOME_FAILED = 1, 2


class Commitments:
    """Remember what was asked and what was answered, in whatever thread and association the answer comes."""

    def __init__(self) -> None:
        self._asked: dict[str, set[str]] = {}
        self._safe: set[str] = set()
        self._failed: dict[str, int] = {}
        self._changed = threading.Condition()

    def ask(self, objects: Iterable[tuple[str, str]]) -> Dataset:
        """Return the action information that asks for objects, given by SOP class and SOP instance UID."""
        request = Dataset()
        request.TransactionUID = generate_uid()
        request.ReferencedSOPSequence = []
        for sop_class, instance in objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            request.ReferencedSOPSequence.append(item)
        with self._changed:
            asked = {str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence}
            self._asked[str(request.TransactionUID)] = asked
            for instance in asked:
                self._failed.pop(instance, None)
        return request

    def answer(self, event: Event) -> tuple[int, None]:
        """Take an N-EVENT-REPORT; one about a transaction that was not asked for is refused."""
        if event.event_type not in (ALL_SAFE, SOME_FAILED):
            return NO_SUCH_EVENT, None
        report = event.event_information
        with self._changed:
            asked = self._asked.get(str(report.get("TransactionUID") or ""), set())
            if not asked:
                return INVALID, None
            named = {str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or []}
            failed = {
                str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0)
                for item in report.get("FailedSOPSequence") or []
            }
            self._safe |= asked & named - failed.keys()
            self._failed |= {instance: reason for instance, reason in failed.items() if instance in asked}
            self._changed.notify_all()
        return TAKEN, None

    def all_safe(self, instances: Iterable[str]) -> bool:
        """Return whether the archive vouches for all of these objects."""
        with self._changed:
            return set(instances) <= self._safe

    def wait(self, instances: Iterable[str], seconds: float) -> dict[str, int] | None:
        """Wait for the answer about objects.

        Returns:
            Those that are not safe, with the reason; none where all are; None where no answer came in time.
        """
        wanted, end = set(instances), time.monotonic() + seconds
        with self._changed:
            while not wanted <= self._safe | self._failed.keys():
                if not self._changed.wait(max(end - time.monotonic(), 0)) and time.monotonic() >= end:
                    return None
            return {instance: reason for instance, reason in self._failed.items() if instance in wanted}

    def forget(self, instances: Iterable[str]) -> None:
        """Forget objects that are done with."""
        with self._changed:
            done = set(instances)
            self._safe -= done
            self._failed = {instance: reason for instance, reason in self._failed.items() if instance not in done}
            self._asked = {transaction: asked for transaction, asked in self._asked.items() if asked - done}
