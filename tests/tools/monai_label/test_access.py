# SPDX-License-Identifier: Apache-2.0
"""Who may ask a label server, and what it must have before other machines reach it."""

import argparse
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.access import (
    TOKEN,
    Access,
    holds_token,
    is_from_elsewhere,
    is_known,
    is_loopback,
    read_token,
)

SECRET = "0123456789abcdef-secret"


def write_certificate(folder: Path, *names: str, key: ec.EllipticCurvePrivateKey | None = None) -> tuple[Path, Path]:
    """Write a self-signed certificate for some names, and its key."""
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "label")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, own.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        (key or own).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private


def access(environment=None, **given):
    options = {
        "host": "127.0.0.1",
        "port": 8000,
        "token_file": None,
        "certificate": None,
        "key": None,
        "behind_proxy": None,
    }
    return Access.of(argparse.Namespace(**{**options, **given}), environment or {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "label.example.org"])
def test_a_server_that_other_machines_reach_needs_token_and_encryption(host, tmp_path):
    with pytest.raises(PyrasegError, match=f"--host {host}.*Give a token that clients must know: --token-file FILE"):
        access(host=host)
    with pytest.raises(PyrasegError, match="Give --certificate and --key, or --behind-proxy NAME"):
        access({TOKEN: SECRET}, host=host)
    certificate, key = write_certificate(tmp_path, "label.example.org", "*.wards.example.org")
    encrypted = access({TOKEN: SECRET}, host=host, certificate=certificate, key=key)
    assert encrypted.url.startswith("https://") and encrypted.url.endswith(":8000") and encrypted.token == SECRET
    assert "//0.0.0.0" not in encrypted.url and "[::]" not in encrypted.url
    assert encrypted.for_uvicorn() == ["--ssl_certfile", str(certificate), "--ssl_keyfile", str(key)]
    assert is_known("label.example.org", encrypted.names) and is_known("a.wards.example.org", encrypted.names)
    proxied = access({TOKEN: SECRET}, host=host, behind_proxy="Proxy.example.org")
    assert is_known("proxy.example.org", proxied.names) and proxied.for_uvicorn() == []
    assert proxied.url == "https://Proxy.example.org"


def test_a_proxy_on_this_machine_lets_others_in_too():
    with pytest.raises(PyrasegError, match="Give a token"):
        access(behind_proxy="label.example.org")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_this_machine_needs_neither(host):
    assert is_loopback(host) and access(host=host).token is None
    assert access({TOKEN: SECRET}, host=host).token == SECRET


def test_a_certificate_that_would_not_serve_is_refused(tmp_path):
    certificate, key = write_certificate(tmp_path, "label.example.org")
    with pytest.raises(PyrasegError, match="--certificate and --key belong together"):
        access(certificate=certificate)
    with pytest.raises(PyrasegError, match="Correct --certificate and --key"):
        access(certificate=certificate, key=tmp_path / "none.pem")
    certificate, key = write_certificate(tmp_path)
    with pytest.raises(PyrasegError, match="with names of a server"):
        access(certificate=certificate, key=key)
    certificate, key = write_certificate(tmp_path, "a.example.org", key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(PyrasegError, match="Correct --certificate and --key"):
        access(certificate=certificate, key=key)


def test_authentication_that_is_not_asked_for_is_refused():
    with pytest.raises(PyrasegError, match="does not ask a Keycloak"):
        access({"MONAI_LABEL_AUTH_ENABLE": "true"})


def test_a_token_is_read_from_a_file_that_is_closed(tmp_path):
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    file.chmod(0o644)
    with pytest.raises(PyrasegError, match=r"Other users can read the token.*chmod 600"):
        read_token(file, {})
    file.chmod(0o600)
    assert read_token(file, {TOKEN: "another-token-of-many-signs"}) == SECRET
    with pytest.raises(PyrasegError, match="There is no file"):
        read_token(tmp_path / "none", {})
    assert read_token(None, {}) is None


@pytest.mark.parametrize(
    "token", ["", "tiny", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé-long", "0123456789\tabcdef0"]
)
def test_a_weak_token_is_refused_and_not_shown(token):
    with pytest.raises(PyrasegError, match="too short or has other characters") as error:
        read_token(None, {TOKEN: token})
    assert not token or token not in str(error.value)


def test_a_request_holds_the_token_as_bearer_or_as_password():
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert holds_token(f"Bearer {SECRET}", SECRET) and holds_token(f"bearer {SECRET}", SECRET)
    assert holds_token(basic(f"anybody:{SECRET}"), SECRET) and holds_token(basic(f":{SECRET}"), SECRET)
    for other in (None, "", SECRET, "Bearer", "Bearer ", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Bearer é",
                  f"Digest {SECRET}", basic(SECRET), basic("anybody:"), "Basic ???", "Basic //4="):  # fmt: skip
        assert not holds_token(other, SECRET)


def test_names_that_pages_from_elsewhere_could_have_are_unknown():
    names = {"localhost", "scanner7"}
    for host in ("127.0.0.1", "10.0.0.3", "::1", "localhost", "LOCALHOST", "scanner7"):
        assert is_known(host, names)
    for host in (None, "", "elsewhere.example", "localhost.elsewhere.example", "127.0.0.1.elsewhere.example"):
        assert not is_known(host, names)
    assert not is_from_elsewhere(None, "a:8000") and not is_from_elsewhere("http://a:8000", "a:8000")
    for origin in ("http://a:8001", "https://b", "null", ""):
        assert is_from_elsewhere(origin, "a:8000")
