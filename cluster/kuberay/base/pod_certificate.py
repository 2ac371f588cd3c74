"""Sign a certificate for a pod with the authority's key, before Ray starts; write tls.key, tls.crt and ca.crt.

Ray's processes call each other by the pod's address, and check that the certificate contains this address. So the
certificate can be made only after the pod has an address. This program runs in the only container that sees the key.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 365
SKEW = datetime.timedelta(minutes=5)
"""Maximum lag of another node's clock behind the clock of this node."""


def alternative_names(address: str, head: str) -> list[x509.GeneralName]:
    """Return the names in a certificate: localhost, the host name, `head` unless it is "", 127.0.0.1 and `address`."""
    names = dict.fromkeys(name for name in ("localhost", socket.gethostname(), head) if name)
    addresses = dict.fromkeys(("127.0.0.1", address))
    return [
        *(x509.DNSName(name) for name in names),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses),
    ]


def write(authority: Path, out: Path, address: str, head: str) -> None:
    """Write the pod's key, its certificate and the authority's certificate into a folder.

    Args:
        authority: folder of a `kubernetes.io/tls` Secret with the authority's tls.crt and tls.key.
        out: an existing folder.
        address: IP address of the pod.
        head: DNS name of the head's service, or "".
    """
    issuer = x509.load_pem_x509_certificate((authority / "tls.crt").read_bytes())
    issuer_key = serialization.load_pem_private_key((authority / "tls.key").read_bytes(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise SystemExit(f"{authority}/tls.key: not an elliptic curve's key; make it as the README says")
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + datetime.timedelta(days=DAYS), issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(alternative_names(address, head)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (out / "tls.key").touch(mode=0o600)
    (out / "tls.key").write_bytes(private)
    (out / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (out / "ca.crt").write_bytes(issuer.public_bytes(pem))


def main() -> None:
    """Write the certificate for the pod's address, POD_IP, and the head's name, FQ_RAY_IP, which KubeRay sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--authority", type=Path, required=True, help="folder with the authority's tls.crt, tls.key"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for tls.crt, tls.key and ca.crt")
    arguments = parser.parse_args()
    write(arguments.authority, arguments.out, os.environ["POD_IP"], os.environ.get("FQ_RAY_IP", ""))


if __name__ == "__main__":
    main()
