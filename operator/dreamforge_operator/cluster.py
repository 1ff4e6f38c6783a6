"""The only module of the operator that calls the cluster.

Objects are plain JSON: the client's models would be parsed, validated and written again for every pod, and tell
nothing that the few fields we read do not. Errors become ours here.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from pydantic_core import from_json

from dreamforge.errors import DreamForgeError, Unavailable
from dreamforge_operator import metrics

Json = dict[str, Any]

FIELD_MANAGER = "dreamforge-operator"
_PAGE = 200
_MOST_EXPIRIES = 3
_TIMEOUT_SECONDS = 20.0
#: The API server ends a watch after so long; the next one goes on where it ended.
_WATCH_SECONDS = 300
#: A watch in which nothing moves has a bookmark every minute; one without is dead.
_SILENCE_SECONDS = 75.0
#: What follows names an address. A webhook of Kueue, say, that is away: nothing is made until it is back.
_WEBHOOK = re.compile(r'failed calling webhook "[^"]*"|conversion webhook for [^,]*')
_RETRY_STATUSES = frozenset({401, 408, 429, 500, 502, 503, 504})


class Resource(NamedTuple):
    """A kind of object, as its URL names it."""

    group: str
    plural: str


RENDERJOBS = Resource("apis/dreamforge.dev/v1alpha1", "renderjobs")
JOBS = Resource("apis/batch/v1", "jobs")
PODS = Resource("api/v1", "pods")
EVENTS = Resource("api/v1", "events")
WORKLOADS = Resource("apis/kueue.x-k8s.io/v1beta2", "workloads")


class ClusterUnavailable(Unavailable):
    """The API server can't be reached, is overloaded or refuses for now; try again later."""


class Conflict(DreamForgeError):
    """The object changed since it was read, or one of that name exists already."""


class Refused(DreamForgeError):
    """The API server refuses this request for good; ``message`` is its own explanation."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Cluster(Protocol):
    """The verbs the operator uses, in one namespace. Each may raise ``ClusterUnavailable`` or ``Refused``."""

    async def get(self, resource: Resource, name: str) -> Json | None:
        """The object; ``None`` when there is none."""
        ...

    def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[list[Json]]:
        """All objects that match both selectors, some at a time; none when the kind is not installed.

        A list that expires on the way (410) begins again: objects may come twice.
        """
        ...

    def watch(self, resource: Resource, *, labels: str = "", since: str = "") -> AsyncIterator[Json]:
        """What happens from a version on, until the API server ends it; without a version, what is there first."""
        ...

    async def create(self, resource: Resource, body: Json) -> Json:
        """Raises ``Conflict`` when the name is taken."""
        ...

    async def patch(self, resource: Resource, name: str, body: Json, *, subresource: str = "") -> Json | None:
        """Merge ``body`` into the object; ``None`` when it is gone. Raises ``Conflict``."""
        ...

    async def delete(self, resource: Resource, name: str, *, uid: str) -> bool:
        """Delete the object of that uid, children in the background; False when it is gone already."""
        ...


async def select(cluster: Cluster, resource: Resource, *, labels: str = "", fields: str = "") -> list[Json]:
    """All pages in one list: for selectors that match a few."""
    return [item async for page in cluster.pages(resource, labels=labels, fields=fields) for item in page]


class KubernetesCluster:
    """:class:`Cluster` over the official client's connection, without its models."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    @classmethod
    async def connect(cls, namespace: str) -> "KubernetesCluster":
        """Inside a pod by its service account, else by the kubeconfig."""
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.connection_pool_maxsize = 128
        # Else a ~/.netrc is looked for before each request.
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(ApiClient(configuration), namespace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, name: str) -> Json | None:
        return await self._object("GET", self._url(resource, name))

    async def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[list[Json]]:
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        expired = 0
        while True:
            try:
                page = await self._object("GET", self._url(resource, query=query))
            except Refused as error:
                if error.status != 410 or expired >= _MOST_EXPIRIES:
                    raise
                expired += 1
                query.pop("continue", None)
                continue
            yield (page or {}).get("items") or []
            token = ((page or {}).get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(self, resource: Resource, *, labels: str = "", since: str = "") -> AsyncIterator[Json]:
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        url = self._url(resource, query={**query, "labelSelector": labels, "resourceVersion": since})
        silence = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_SECONDS, sock_read=_SILENCE_SECONDS)
        with _reached():
            answer = await self._call("GET", url, None, silence)
            try:
                if answer.status != 200:
                    _judge(answer.status, await answer.read())
                    return  # the kind is not installed
                async for line in answer.response.content:
                    yield from_json(line)
            finally:
                answer.response.close()

    async def create(self, resource: Resource, body: Json) -> Json:
        metrics.WRITES.labels("create", resource.plural).inc()
        url = self._url(resource, query={"fieldManager": FIELD_MANAGER})
        made = await self._object("POST", url, body)
        if made is None:
            raise ClusterUnavailable("the namespace or the kind does not exist")
        return made

    async def patch(self, resource: Resource, name: str, body: Json, *, subresource: str = "") -> Json | None:
        metrics.WRITES.labels("patch", resource.plural).inc()
        url = self._url(resource, name, subresource, {"fieldManager": FIELD_MANAGER})
        return await self._object("PATCH", url, body)

    async def delete(self, resource: Resource, name: str, *, uid: str) -> bool:
        metrics.WRITES.labels("delete", resource.plural).inc()
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            return await self._object("DELETE", self._url(resource, name), options) is not None
        except Conflict:  # another object has the name by now
            return False

    def _url(
        self, resource: Resource, name: str = "", subresource: str = "", query: Mapping[str, str] | None = None
    ) -> str:
        host = str(self._client.configuration.host).rstrip("/")
        path = [resource.group, "namespaces", self._namespace, resource.plural, quote(name), subresource]
        text = f"{host}/" + "/".join(part for part in path if part)
        told = {key: value for key, value in (query or {}).items() if value}
        return f"{text}?{urlencode(told)}" if told else text

    async def _object(self, method: str, url: str, body: Json | None = None) -> Json | None:
        """One request: the object it answers with, ``None`` for 404."""
        with _reached():
            answer = await self._call(method, url, body, aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))
            data = await answer.read()
        return _judge(answer.status, data)

    async def _call(self, method: str, url: str, body: Json | None, patience: aiohttp.ClientTimeout) -> Any:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
        return await self._client.call_api(method, url, headers, body, _request_timeout=patience)


@contextmanager
def _reached() -> Iterator[None]:
    """Errors of the connection as ours; a ``ValueError`` is half a line of a watch."""
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise ClusterUnavailable(f"the API server did not answer ({type(error).__name__})") from error


def _judge(status: int, data: bytes) -> Json | None:
    """The object in an answer, or our error for it."""
    if status == 404:
        return None
    try:
        body: Json = from_json(data)
    except ValueError:
        raise ClusterUnavailable(f"the API server answered {status} without JSON") from None
    if status < 300:
        return body
    if status == 409:
        raise Conflict(str(body.get("reason", "Conflict")))
    webhook = _WEBHOOK.search(str(body.get("message", "")))
    if webhook:
        raise Refused(status, "WebhookFailed", f"{webhook[0]}; it is tried again")
    if status in _RETRY_STATUSES:
        raise ClusterUnavailable(f"the API server answered {status}")
    raise Refused(status, str(body.get("reason", "")), str(body.get("message", ""))[:1000])
