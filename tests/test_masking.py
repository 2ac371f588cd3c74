"""No password, token or signature of a URI is left in a text, and nothing else is taken out of it."""

import pytest

from sclip.masking import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:secret@host:5000/x", "http://***@host:5000/x"),
        ("http://secret@host", "http://***@host"),
        ("mysql+pymysql://user:secret@db/mlflow", "mysql+pymysql://***@db/mlflow"),
        ("http://user:sec@ret@host", "http://***@host"),
        ("postgresql://user:sec/ret@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("s3://key:secret@bucket/{00..12}.tar", "s3://***@bucket/{00..12}.tar"),
        ("https://host/a.tar?sig=secret&se=secret", "https://host/a.tar?sig=***&se=***"),
        ("['s3://k:secret@a/*.tar', 's3://k:secret@b']", "['s3://***@a/*.tar', 's3://***@b']"),
        ("no address, user@host and 3 @ 4", "no address, user@host and 3 @ 4"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("models:/structure-clip@candidate", "models:/structure-clip@candidate"),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize("told", ["login as user with s%2Fcret", "login as user with s/cret"])
def test_what_a_library_says_of_a_uri_is_without_its_password_too(told: str) -> None:
    assert mask(told, "s3://user:s%2Fcret@bucket/a.tar") == "login as user with ***"
    assert mask(told, "s3://bucket/a.tar") == told
