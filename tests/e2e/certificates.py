"""A private certificate authority and a certificate for `localhost` that it has signed; both are valid for an hour."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make(folder):
    """Three files in `folder`: the authority to trust, a server's key, and its certificate."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = sign("A private authority", authority_key, authority_key, None)
    server = sign("localhost", server_key, authority_key, authority)
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    contents = {
        "authority.pem": authority.public_bytes(serialization.Encoding.PEM),
        "key.pem": key,
        "certificate.pem": server.public_bytes(serialization.Encoding.PEM),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return tuple(folder / name for name in contents)


def sign(name, key, signing_key, authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    own_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks may differ.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(own_identifier, critical=False)
        .add_extension(identifier, critical=False)
    )
    if authority:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        certificate = certificate.add_extension(names, critical=False)
    return certificate.sign(signing_key, hashes.SHA256())
