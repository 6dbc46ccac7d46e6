"""Certificates for servers that live for one test, made by openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def certificate(directory: Path, name: str, *, days: int = 2) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate of `name` (`IP:…` or `DNS:…`); return a server's context, and what a client is to trust.

    With negative `days` it has expired, and vouches for itself all the same.
    """
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    directory.mkdir(parents=True, exist_ok=True)
    key, made, request, extensions = (directory / part for part in ("key.pem", "cert.pem", "request.csr", "names.cnf"))
    extensions.write_text(f"subjectAltName={name}\nbasicConstraints=critical,CA:TRUE\n")
    _openssl("req", "-new", *_KEY, "-keyout", key, "-out", request, "-subj", "/CN=r3mes test")
    _openssl(*("x509", "-req", "-in", request, "-signkey", key), "-days", days, "-extfile", extensions, "-out", made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context, made


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *(str(argument) for argument in arguments)], check=True, capture_output=True)
