"""Objects in any S3-compatible service, through boto3. The one module that knows botocore's errors.

Uploads carry their SHA-256 as a signed checksum: versitygw 1.8.0 stores a truncated body when a request has none.
Links are for reading only, for the same reason. Reads and writes of a bucket that does not exist yet are those of an
empty one; the first write makes it.
"""

import base64
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar, cast
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError

from dreamforge.errors import ConfigurationError
from dreamforge.storage.base import (
    DiskFull,
    ObjectInfo,
    ObjectNotFound,
    SignedUrl,
    StorageError,
    StorageUnavailable,
)
from dreamforge.storage.checks import (
    require_content_type,
    require_digest,
    require_filename,
    require_key,
    require_metadata,
    require_prefix,
    require_ttl,
)
from dreamforge.storage.links import content_disposition

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType

_T = TypeVar("_T")

# Path style and "when_required" are what other services than AWS understand. Standard mode retries lost connections,
# 429 and 5xx with jittered waits.
_PATIENT = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=2.0,
    read_timeout=20.0,
    max_pool_connections=16,
    tcp_keepalive=True,
)
# Readiness must answer soon, also when the service is gone.
_HASTY = _PATIENT.merge(
    Config(connect_timeout=1.0, read_timeout=1.5, retries={"mode": "standard", "total_max_attempts": 1})
)

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_FULL = frozenset({"507", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull", "QuotaExceeded"})
_MADE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_LASTING_CONFLICTS = frozenset({"ObjectParentIsFile"})  # versitygw: `a` and `a/b` can't both be
_UNREACHABLE = (BotoConnectionError, HTTPClientError, IncompleteReadError)
_CONFLICT_ATTEMPTS = 4


@dataclass(frozen=True)
class S3Location:
    """Where the service is and who we are. ``None`` leaves the choice to AWS's own defaults."""

    bucket: str
    region: str = "us-east-1"
    endpoint: str | None = None
    public_endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


class S3Store:
    """A :class:`~dreamforge.storage.base.Storage` over one bucket."""

    def __init__(self, location: S3Location) -> None:
        self._bucket = location.bucket
        self._region = location.region
        session = boto3.session.Session()
        self._client = _client(session, location, location.endpoint, _PATIENT)
        self._probe = _client(session, location, location.endpoint, _HASTY)
        # A signature covers the host, so links are signed for the host that clients use.
        self._signer = _client(session, location, location.public_endpoint or location.endpoint, _HASTY)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        sha256: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        require_key(key)
        require_digest(sha256)
        require_content_type(content_type)
        require_metadata(metadata or {})
        with _translated(f"put {key}"):
            self._write(self._client, key, data, content_type, {**(metadata or {}), "sha256": sha256})
        return ObjectInfo(key, len(data), sha256, content_type, datetime.now(UTC), dict(metadata or {}))

    def get(self, key: str) -> bytes:
        require_key(key)
        with _translated(f"get {key}"):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def head(self, key: str) -> ObjectInfo | None:
        require_key(key)
        try:
            with _translated(f"head {key}"):
                found = self._client.head_object(Bucket=self._bucket, Key=key)
        except ObjectNotFound:
            return None
        metadata = dict(found["Metadata"])
        sha256 = metadata.pop("sha256", None)
        return ObjectInfo(key, found["ContentLength"], sha256, found["ContentType"], found["LastModified"], metadata)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        require_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            with _translated(f"list {prefix}"):
                for page in pages:
                    for item in page.get("Contents", []):
                        yield ObjectInfo(item["Key"], item["Size"], modified_at=item["LastModified"])
        except ObjectNotFound:
            return  # no bucket yet

    def delete(self, key: str) -> None:
        require_key(key)
        try:
            with _translated(f"delete {key}"):
                _through_conflicts(lambda: self._client.delete_object(Bucket=self._bucket, Key=key))
        except ObjectNotFound:
            return

    def sign_get(self, key: str, *, ttl_seconds: int, filename: str, content_type: str) -> SignedUrl:
        require_key(key)
        require_ttl(ttl_seconds)
        require_filename(filename)
        require_content_type(content_type)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ttl_seconds)
        with _translated(f"sign {key}"):
            url = self._signer.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": key,
                    "ResponseContentDisposition": content_disposition(filename),
                    "ResponseContentType": content_type,
                    "ResponseCacheControl": "private, no-store",
                },
                ExpiresIn=ttl_seconds,
            )
        return SignedUrl(url, expires_at)

    def check(self) -> None:
        """Write, read and remove a small object: a health page can be green while writes fail."""
        # No slash: a folder that comes and goes makes versitygw answer 409 to other writers below it.
        key, content = f"dreamforge-check-{uuid4()}", uuid4().bytes
        digest = hashlib.sha256(content).hexdigest()
        try:
            with _translated(f"check of bucket {self._bucket}"):
                # A server that hangs is noticed here; a PUT would first wait a second for its "100 Continue".
                with suppress(ClientError):
                    self._probe.head_bucket(Bucket=self._bucket)
                self._write(self._probe, key, content, "application/octet-stream", {"sha256": digest})
                same = self._probe.get_object(Bucket=self._bucket, Key=key)["Body"].read() == content
                self._probe.delete_object(Bucket=self._bucket, Key=key)
        except StorageUnavailable:
            raise
        except StorageError as error:
            raise StorageUnavailable(str(error)) from error
        if not same:
            raise StorageUnavailable(f"check of bucket {self._bucket}: an object reads back otherwise")

    def ensure_bucket(self) -> None:
        """Make the bucket if it is missing; private, as S3 does by default."""
        with _translated(f"make bucket {self._bucket}"):
            self._make_bucket(self._client)

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        for client in (self._client, self._probe, self._signer):
            client.close()

    def _write(
        self, client: "S3Client", key: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> None:
        def put() -> None:
            client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType=content_type,
                Metadata=metadata,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(metadata["sha256"])).decode("ascii"),
            )

        try:
            _through_conflicts(put)
        except ClientError as error:
            if _code(error) != "NoSuchBucket":
                raise
            self._make_bucket(client)
            _through_conflicts(put)

    def _make_bucket(self, client: "S3Client") -> None:
        try:
            if self._region == "us-east-1":  # AWS and versitygw refuse it as a constraint
                client.create_bucket(Bucket=self._bucket)
            else:
                region = cast("BucketLocationConstraintType", self._region)
                client.create_bucket(Bucket=self._bucket, CreateBucketConfiguration={"LocationConstraint": region})
        except ClientError as error:
            if _code(error) not in _MADE:
                raise


def _client(session: boto3.session.Session, location: S3Location, endpoint: str | None, config: Config) -> "S3Client":
    try:
        return session.client(
            "s3",
            region_name=location.region,
            endpoint_url=endpoint,
            aws_access_key_id=location.access_key_id,
            aws_secret_access_key=location.secret_access_key,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"DF_S3_ENDPOINT, DF_S3_REGION: no S3 client can be made: {error}") from error


def _through_conflicts(call: Callable[[], _T]) -> _T:
    """Run ``call`` again after a 409 that passes: two writers met (botocore retries the rest, but not these)."""
    for attempt in range(_CONFLICT_ATTEMPTS - 1):
        try:
            return call()
        except ClientError as error:
            if _status(error) != 409 or _code(error) in _LASTING_CONFLICTS:
                raise
        time.sleep(random.uniform(0.01, 0.05 * 2**attempt))  # noqa: S311 - jitter, not a secret
    return call()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Turn botocore's errors into the port's. Their text may hold a request, so only code and kind are told."""
    try:
        yield
    except ClientError as error:
        code, status = _code(error), _status(error)
        text = f"{action}: the store answered {status} {code}"
        if code in _MISSING:
            raise ObjectNotFound(text) from error
        if code in _FULL or status == 507:
            raise DiskFull(text) from error
        if status >= 500 or status == 429:
            raise StorageUnavailable(text) from error
        raise StorageError(text) from error
    except _UNREACHABLE as error:
        raise StorageUnavailable(f"{action}: the store can't be reached ({type(error).__name__})") from error
    except BotoCoreError as error:
        raise StorageError(f"{action}: {type(error).__name__}") from error
