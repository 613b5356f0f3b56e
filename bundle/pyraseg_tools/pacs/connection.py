# SPDX-License-Identifier: Apache-2.0
"""Reach a PACS over DICOMweb (PS3.18): certificates checked, credentials from the environment, errors in words."""

import ipaddress
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Retry

from bundle.pyraseg.core import PyrasegError

USER, PASSWORD, TOKEN = "PYRASEG_PACS_USER", "PYRASEG_PACS_PASSWORD", "PYRASEG_PACS_TOKEN"
#: Seconds for a connection, and between two pieces of an answer: an archive may have to fetch a tape.
TIMEOUT = (10, 120)
#: A search or a retrieval, never a storage, is tried again after these answers, three times at once.
PASSING = (429, 502, 503, 504)


class PacsError(PyrasegError):
    """The PACS did not do what it was asked; it may do so another time."""


class Unavailable(PacsError):
    """The PACS cannot be reached or lets nobody in, so that nothing else can succeed."""


def connect(
    url: str, *, environment: Mapping[str, str], ca_bundle: Path | None = None, allow_http: bool = False
) -> DICOMwebClient:
    """Return a client of a PACS; nothing is sent yet. See `open_session`, which it speaks through."""
    session = open_session(url, environment=environment, ca_bundle=ca_bundle, allow_http=allow_http)
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # what matters of its notices is raised here
    client = DICOMwebClient(url.rstrip("/"), session=session, timeout=TIMEOUT)
    client.set_http_retry_params(retry=False)  # its own repeats a storage whose data are spent, and waits half a minute
    return client


def open_session(
    url: str, *, environment: Mapping[str, str], ca_bundle: Path | None = None, allow_http: bool = False
) -> requests.Session:
    """Return a session that has the credentials of a PACS; nothing is sent yet.

    Proxies, a .netrc and certificates that the environment names for other programs are not heeded, and redirects are
    refused: images go to the address that was given.

    Args:
        url: where its DICOMweb is, such as https://pacs.example.org/dicom-web.
        environment: PYRASEG_PACS_USER and PYRASEG_PACS_PASSWORD, or PYRASEG_PACS_TOKEN (OAuth 2.0), or neither.
        ca_bundle: PEM file of the authorities that are trusted, instead of the public ones.
        allow_http: send images without encryption to another machine; credentials are never sent so.

    Raises:
        PyrasegError: the address, the credentials or the bundle cannot be.
    """
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
        raise PyrasegError(
            f"{_without_credentials(url)} is no address of a PACS. Give one such as https://pacs.example.org/dicom-web."
        )
    if address.username is not None or address.password is not None:
        raise PyrasegError(
            f"The address {_without_credentials(url)} was given with credentials in it, which others can see. Put them "
            f"into the environment as {USER} and {PASSWORD}."
        )
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    retry = Retry(3, connect=0, read=0, status_forcelist=PASSING, allowed_methods=["GET"], raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    _add_credentials(session, environment)
    if address.scheme == "http" and not _is_this_machine(address.hostname):
        if session.auth or "Authorization" in session.headers:
            raise PyrasegError(f"Credentials are not sent without encryption to {address.hostname}. Use https.")
        if not allow_http:
            raise PyrasegError(
                f"Images would go to {address.hostname} without encryption. Use https, or allow it with --allow-http."
            )
    if ca_bundle is not None:
        if not ca_bundle.is_file():
            raise PyrasegError(f"There is no CA bundle at {ca_bundle}. Give a PEM file.")
        session.verify = str(ca_bundle)
    return session


@contextmanager
def plain_errors(client: DICOMwebClient) -> Generator[None]:
    """Raise what goes wrong between here and the PACS in words that quote no answer and no credentials.

    Raises:
        Unavailable: no connection, no trust, no entrance.
        PacsError: another failure of the PACS.
        PyrasegError: it does not take this request, and will not.
    """
    url = client.base_url
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise Unavailable(
            f"The certificate of {url} is not trusted. Give the authority that signed it, a PEM file, as --ca-bundle."
        ) from error
    except requests.exceptions.TooManyRedirects as error:
        raise Unavailable(f"{url} sends elsewhere, and redirects are not followed. Give the final address.") from error
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise Unavailable(
                f"{url} refuses the credentials (HTTP 401). Set {USER} and {PASSWORD}, or {TOKEN}."
            ) from error
        if status == 403:
            raise PacsError(f"{url} does not permit this to the user (HTTP 403). Ask for the permission.") from error
        if status == 404:
            raise PacsError(f"{url} has no such thing (HTTP 404). Is the address that of its DICOMweb?") from error
        kind = PacsError if status >= 500 or status in (408, 429) else PyrasegError
        raise kind(f"{url} refused a request (HTTP {status}). Its own log says why.") from error
    except requests.exceptions.JSONDecodeError as error:
        raise PacsError(f"{url} does not answer as DICOMweb. Correct the address.") from error
    except requests.exceptions.RequestException as error:
        if isinstance(_reason(error), NewConnectionError | ConnectTimeoutError):
            raise Unavailable(f"No connection to {url}. Correct the address, or start the PACS.") from error
        raise PacsError(
            f"{url} closed the connection, or does not answer in time. Try again, or check the PACS."
        ) from error


def _reason(error: requests.exceptions.RequestException) -> Exception | None:
    """Return what urllib3 gave up for."""
    return getattr(error.args[0], "reason", None) if error.args else None


def _add_credentials(session: requests.Session, environment: Mapping[str, str]) -> None:
    user, password, token = (environment.get(name) for name in (USER, PASSWORD, TOKEN))
    if (user is None) != (password is None) or (token and user):
        raise PyrasegError(f"Set both {USER} and {PASSWORD}, or {TOKEN} alone.")
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user is not None and password is not None:
        # As text, requests would take Latin-1 alone.
        session.auth = (user.encode(), password.encode())  # pyrefly: ignore # its stub names text alone


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_credentials(url: str) -> str:
    return f"{urlsplit(url).scheme}://...{url.rpartition('@')[2]}" if "@" in url else url
