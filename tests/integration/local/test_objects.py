"""The objects of the local stack's bucket are files: their content uses neither memory nor file descriptors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from local.moto.objects import objects_in_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def s3(folder: Path) -> Iterator[Any]:
    with objects_in_files(folder), mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        yield client


def contents(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.iterdir())


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def body(s3: Any, key: str, **parameters: Any) -> bytes:
    content: bytes = s3.get_object(Bucket="images", Key=key, **parameters)["Body"].read()
    return content


def test_content_is_in_files_that_only_this_user_can_read(s3: Any, folder: Path) -> None:
    s3.put_object(Bucket="images", Key="one", Body=b"first")
    s3.put_object(Bucket="images", Key="empty", Body=b"")

    assert contents(folder) == [b"", b"first"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_objects_are_read_written_again_copied_and_deleted(s3: Any, folder: Path) -> None:
    s3.put_object(Bucket="images", Key="one", Body=b"first")
    etag = s3.head_object(Bucket="images", Key="one")["ETag"]
    s3.copy_object(Bucket="images", Key="copy", CopySource={"Bucket": "images", "Key": "one"})
    s3.put_object(Bucket="images", Key="one", Body=b"2nd")

    assert (body(s3, "one"), body(s3, "copy"), body(s3, "copy", Range="bytes=1-2")) == (b"2nd", b"first", b"ir")
    assert s3.head_object(Bucket="images", Key="copy")["ETag"] == etag

    s3.delete_object(Bucket="images", Key="copy")
    with pytest.raises(ClientError, match="NoSuchKey"):
        body(s3, "copy")
    assert contents(folder) == [b"2nd"]


def test_replaced_versions_of_an_object_are_kept(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="images", Key="one", Body=b"first")["VersionId"]
    s3.put_object(Bucket="images", Key="one", Body=b"2nd")
    s3.delete_object(Bucket="images", Key="one")

    assert body(s3, "one", VersionId=first) == b"first"


def test_objects_keep_no_file_open(s3: Any) -> None:
    before = open_descriptors()

    for number in range(50):
        s3.put_object(Bucket="images", Key=f"{number}", Body=b"content")

    assert open_descriptors() - before < 10


def test_files_are_deleted_with_the_objects_at_the_end(folder: Path) -> None:
    with objects_in_files(folder), mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        client.put_object(Bucket="images", Key="one", Body=b"first")

    assert contents(folder) == []
