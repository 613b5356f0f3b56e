# SPDX-License-Identifier: Apache-2.0
"""Open an association with another node, with errors in words."""

import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, Association
from pynetdicom.presentation import PresentationContext

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.dimse.listener import TIMEOUTS, Timeouts, keep_silent
from bundle.pyraseg_tools.dimse.peers import Peer
from bundle.pyraseg_tools.pacs import Unavailable


@dataclass(frozen=True)
class Caller:
    """Hold who calls whom, and how.

    Attributes:
        title: AE title of this node.
        peer: the other one.
        tls: for TLS, else without.
        timeouts: how long is waited.
    """

    title: str
    peer: Peer
    tls: ssl.SSLContext | None = None
    timeouts: Timeouts = TIMEOUTS

    @contextmanager
    def association(
        self,
        contexts: Sequence[PresentationContext],
        *,
        handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
    ) -> Generator[Association]:
        """Yield an association, and release it at the end.

        Raises:
            Unavailable: the node does not answer, is not trusted, or lets this one not in.
        """
        keep_silent()
        entity = AE(ae_title=self.title)
        self.timeouts.apply(entity)
        tls = None if self.tls is None else (self.tls, self.peer.host)
        try:
            association = entity.associate(
                self.peer.host,
                self.peer.port,
                list(contexts),
                ae_title=self.peer.title,
                tls_args=tls,
                evt_handlers=list(handlers),
            )
        except (OSError, RuntimeError) as error:  # an unknown host among them
            raise Unavailable(f"There is no way to {self.peer}. Correct the address, or start the node.") from error
        try:
            self._require_established(association)
            yield association
        finally:
            if association.is_established:
                association.release()

    def _require_established(self, association: Association) -> None:
        if association.is_established:
            return
        answer = association.acceptor.primitive
        if answer is None:
            how = "without TLS" if self.tls is None else "by TLS"
            raise Unavailable(
                f"{self.peer} does not answer {how}, or its certificate or ours is not trusted. Correct the address or "
                "the certificates, or start the node."
            )
        if association.is_rejected:
            raise Unavailable(
                f"{self.peer} refuses this node, {self.title} ({answer.reason_str}). Let both know the AE titles of "
                "each other."
            )
        raise PyrasegError(f"{self.peer} takes nothing of what this node offers. Look at docs/conformance.md.")
