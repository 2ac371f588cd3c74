"""Masking removes passwords, tokens and signatures of URIs from a text, and nothing else."""

import pytest

from sclip.storage.masking import is_masked, mask, mask_tree


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
        ("gs://anonymous@bucket/a.tar", "gs://anonymous@bucket/a.tar"),
        ("s3://b/*.tar?region=eu&endpoint_override=http://minio:9000", None),
        ("s3://b/a.tar?endpoint_override=http%3A%2F%2Fminio:9000&scheme=http&anonymous=true", None),
        ("s3://b/a?endpoint_override=http://user:secret@minio", "s3://b/a?endpoint_override=***"),
        ("s3://b/a?endpoint_override=http%3A%2F%2Fuser%3Asecret%40minio", "s3://b/a?endpoint_override=***"),
        ("s3://b/a?region=eu&X-Amz-Signature=secret", "s3://b/a?region=eu&X-Amz-Signature=***"),
        ("s3://b/a?region=eu,https://host/a?sig=secret", "s3://b/a?region=***"),
        ("/data/?/date=2024-01/*.tar", None),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, masked: str | None) -> None:
    assert mask(text) == (text if masked is None else masked)
    assert mask(mask(text)) == mask(text)
    assert is_masked(mask(text)) == (mask(text) != text)


@pytest.mark.parametrize("message", ["login as user with s%2Fcret", "login as user with s/cret"])
def test_a_library_s_message_about_a_uri_is_masked_too(message: str) -> None:
    assert mask(message, "s3://user:s%2Fcret@bucket/a.tar") == "login as user with ***"
    assert mask(message, "s3://bucket/a.tar") == message


def test_every_text_of_a_tree_is_masked_and_other_values_stay() -> None:
    tree = {"a": ["s3://k:secret@b", 1, None], "b": {"c": "https://h/x?sig=secret", "d": 0.5, "e": True}}
    assert mask_tree(tree) == {
        "a": ["s3://***@b", 1, None], "b": {"c": "https://h/x?sig=***", "d": 0.5, "e": True}
    }  # fmt: skip
