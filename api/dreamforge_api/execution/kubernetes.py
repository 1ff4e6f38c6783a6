"""Runs jobs on a cluster: a Secret with the render spec, a RenderJob that names it, and nothing else.

What becomes of the RenderJob is the operator's business, and results come as events. This is the one module of the
API that calls a cluster. It speaks plain objects over the official client's connection and logins; the client's typed
models would cost a second of imports to say the same. Facts about it: no timeout unless given, and urllib3's own
retries, which could make a POST twice as long as its bound; both are set here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from pydantic import ValidationError

from dreamforge.errors import ConfigurationError
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import ConditionType, Phase
from dreamforge.renderjob.status import RenderJobStatus
from dreamforge.spec import RenderSpec
from dreamforge_api.execution.base import Liveness, Refused, TryLater, Unreachable
from dreamforge_api.execution.orders import renderjob, secret, spec_hash

#: Connect, then read, in seconds.
_TIMEOUTS: Final = urllib3.Timeout(connect=3.0, read=10.0)
_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
_ENDED: Final = (ConditionType.COMPLETE, ConditionType.FAILED, ConditionType.CANCELED)
_AT_WORK: Final = frozenset({Phase.RENDERING, Phase.CANCELING})
_TRY_LATER: Final = frozenset({0, 401, 408, 409, 429})
_LONGEST_MESSAGE: Final = 1000


class NotFound(Exception):
    """The API server has no such object."""


class AlreadyExists(Exception):
    """The API server has an object of this name."""


class KubernetesExecutor:
    """The executor of a cluster. ``backoff_limit``: retries of each shard, which the cluster makes by itself."""

    kind = "kubernetes"
    retries_itself = True

    def __init__(
        self, connection: "Connection", namespace: str, *, backoff_limit: int = 2, queue: str | None = None
    ) -> None:
        self._cluster = connection
        self._namespace = namespace
        self._backoff_limit = backoff_limit
        self._queue = queue

    def submit(self, spec: RenderSpec) -> str:
        name, digest = names.resource_name(spec.job_id), spec_hash(spec)
        # Both are made before the first is sent: what can't be written leaves nothing behind.
        for path, made in (
            (self._secrets(), secret(spec, digest)),
            (self._renderjobs(), renderjob(spec, digest, backoff_limit=self._backoff_limit, queue=self._queue)),
        ):
            try:
                self._cluster.call("POST", f"{path}?fieldManager={names.API_MANAGER}", made)
            except AlreadyExists:
                self._require_same(f"{path}/{name}", digest)
            except NotFound:
                raise TryLater(f"the cluster has no namespace {self._namespace}, or no RenderJobs yet") from None
        return f"{self._namespace}/{name}"

    def cancel(self, job_id: UUID, ref: str | None) -> None:
        path = self._object(job_id, ref)
        try:
            if ref is None:
                self._own(path, job_id)
            told = {"spec": {"cancel": True}}
            self._cluster.call("PATCH", f"{path}?fieldManager={names.API_MANAGER}", told, content_type=_MERGE)
        except NotFound:
            return
        except Refused as error:
            raise TryLater(str(error)) from error

    def liveness(self, job_id: UUID, ref: str | None) -> Liveness:
        try:
            path = self._object(job_id, ref)
            found = self._own(path, job_id) if ref is None else self._cluster.call("GET", path)
        except NotFound:
            return Liveness.ABSENT
        except Refused as error:
            raise TryLater(str(error)) from error
        return liveness_of(found)

    def release(self, job_id: UUID, ref: str | None) -> bool:
        if self.liveness(job_id, ref) in (Liveness.WAITING, Liveness.ALIVE):
            return False  # a pod that is made again would find no input
        name = names.resource_name(job_id)
        if ref not in (None, f"{self._namespace}/{name}"):
            return True
        path = f"{self._secrets()}/{name}"
        try:
            if ref is None:
                self._own(path, job_id)
            self._cluster.call("DELETE", path)
        except NotFound:
            return True
        except Refused as error:
            raise TryLater(str(error)) from error
        return True

    def _own(self, path: str, job_id: UUID) -> dict[str, Any]:
        """What is there. Raises ``NotFound`` also for what only has the name: no ``submit`` said that it is ours."""
        found = self._cluster.call("GET", path)
        if found.get("metadata", {}).get("labels", {}).get(names.LABEL_JOB_ID) != str(job_id):
            raise NotFound(f"{path} is not of this job")
        return found

    def _require_same(self, path: str, digest: str) -> None:
        """What is there already must be what would have been made."""
        try:
            found = self._cluster.call("GET", path)
        except NotFound:
            raise TryLater("an object of this name has just been deleted") from None
        metadata = found.get("metadata", {})
        if metadata.get("deletionTimestamp"):
            raise TryLater("an object of this name is being deleted")
        if metadata.get("annotations", {}).get(names.ANNOTATION_SPEC_HASH) != digest:
            kind, name = found.get("kind", "object"), metadata.get("name")
            raise Refused(f"{kind} {self._namespace}/{name} exists already and stands for another job")

    def _secrets(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    def _renderjobs(self, namespace: str | None = None) -> str:
        return f"/apis/{names.API_VERSION}/namespaces/{namespace or self._namespace}/{names.PLURAL}"

    def _object(self, job_id: UUID, ref: str | None) -> str:
        namespace, _, name = (ref or f"{self._namespace}/{names.resource_name(job_id)}").rpartition("/")
        return f"{self._renderjobs(quote(namespace, safe=''))}/{quote(name, safe='')}"


def liveness_of(found: Mapping[str, Any]) -> Liveness:
    """What a RenderJob's status says of the job."""
    try:
        status = RenderJobStatus.model_validate(found.get("status") or {})
    except ValidationError as error:
        raise TryLater("the RenderJob's status can't be read") from error
    if any(status.is_true(kind) for kind in _ENDED):
        return Liveness.GONE
    return Liveness.ALIVE if status.phase in _AT_WORK else Liveness.WAITING


class Connection:
    """One API server over HTTP, objects in and out; what goes wrong is one of four kinds."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    def open(cls, kubeconfig: Path | None) -> "Connection":
        """By a kubeconfig, else as the pod's service account. Raises ``ConfigurationError``; calls nobody yet."""
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            where = f"KUBECONFIG: {kubeconfig}" if kubeconfig else "KUBECONFIG: is not set, and this is no pod"
            raise ConfigurationError(f"{where}: {error}") from error
        configuration.retries = False
        return cls(ApiClient(configuration))

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, content_type: str = _JSON
    ) -> dict[str, Any]:
        """The object that was answered. Raises ``NotFound``, ``AlreadyExists``, ``TryLater`` or ``Refused``."""
        status, told = self._ask(method, path, body, content_type)
        if status == 403 and not _quota_is_full(status, told):
            if self._ask("GET", "/readyz")[0] != 200:  # until it has read who may do what, it answers 403
                raise TryLater("the cluster is not ready")
            status, told = self._ask(method, path, body, content_type)
        if not 200 <= status < 300:
            raise _refusal(status, told)
        return told

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content_type: str = _JSON
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": names.API_MANAGER}
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            # The client's logins and connections: its own way to a request takes half as long again.
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = self._client.rest_client.pool_manager.request(
                method, f"{self._client.configuration.host}{path}", body=data, headers=headers, timeout=_TIMEOUTS
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"the cluster can't be reached: {_cause(error)}") from error
        return answer.status, _object(answer.data)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()  # type: ignore[no-untyped-call]


def _refusal(status: int, told: Mapping[str, Any]) -> Exception:
    """An answer that is none of success, as one of our kinds. The API server's message never quotes a Secret."""
    reason = told.get("reason")
    message = str(told.get("message") or f"HTTP {status}")[:_LONGEST_MESSAGE]
    if status == 404:
        # An answer without an object's name is about its kind or namespace.
        if told.get("details", {}).get("name") and told.get("details", {}).get("kind") != "namespaces":
            return NotFound(message)
        return TryLater(f"the cluster does not know what is asked for: {message}")
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(message)
    if status in _TRY_LATER or status >= 500 or _quota_is_full(status, told):
        return TryLater(f"the cluster says {status} {reason or ''}: {message}")
    return Refused(f"the cluster refuses the job: {message}")


def _quota_is_full(status: int, told: Mapping[str, Any]) -> bool:
    return status == 403 and " quota: " in str(told.get("message"))  # also "unknown", of one not counted yet


def _object(data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _cause(error: Exception) -> str:
    """What happened, without the URL that urllib3 likes to repeat."""
    reason = getattr(error, "reason", None)
    return f"{type(error).__name__}: {reason}" if isinstance(reason, str) else type(reason or error).__name__
