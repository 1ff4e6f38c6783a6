"""huggingface_hub's client over our guarded one, and its errors as ours.

Its HTTP library is another one than ours and follows redirects, so each of its requests is answered by
:func:`~dreamforge_cli.models.sources.asking.ask`: public addresses, https, bounds, the token at its own origin only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import HfApi, close_session, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError, NetworkError, NotAllowed
from dreamforge_cli.models.sources.asking import ask
from dreamforge_cli.models.sources.base import Credential, SourceContext
from dreamforge_cli.models.sources.names import words

_HEX = r"^[0-9a-f]{40}$"
#: What the client reads of an answer. It would write others, such as a warning, to the terminal as they came.
_READ_HEADERS = {"content-type", "x-error-code", "x-error-message"}
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class Lfs(BaseModel):
    """What LFS knows of a file."""

    model_config = ConfigDict(from_attributes=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Listed(BaseModel):
    """A file of a repository."""

    model_config = ConfigDict(from_attributes=True)

    rfilename: str = Field(min_length=1, max_length=1024)
    size: int | None = Field(None, ge=0)
    blob_id: str | None = Field(None, pattern=_HEX)
    lfs: Lfs | None = None


class Repository(BaseModel):
    """A repository at one commit. The client does not check what it was told; this does."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(pattern=f"^{REPOSITORY.pattern}$")
    sha: str = Field(pattern=_HEX)
    gated: str | bool | None = None
    siblings: list[Listed]
    license: str | None = None


class Hub:
    """The two questions that resolving asks."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self.endpoint = context.endpoints["hf"]
        self.token: SecretStr | None = context.tokens.get("HF_TOKEN")

    @property
    def credential(self) -> Credential | None:
        """The token and where it belongs."""
        return None if self.token is None else Credential(self.endpoint, self.token)

    def repository(self, name: str, revision: str | None) -> Repository:
        """Files and hashes at a revision, and what the revision is now."""
        with self._client(name, revision) as api:
            info = api.model_info(name, revision=revision, files_metadata=True)
            told = info.card_data.get("license") if info.card_data is not None else None
            found = Repository.model_validate(info)
            files = [file for file in found.siblings if _is_plain(file.rfilename)]
            license_ = words(told) if isinstance(told, str) else None
            return found.model_copy(update={"siblings": files, "license": license_})

    def check_access(self, name: str) -> None:
        """Raise unless these credentials may download from a gated repository."""
        with self._client(name, None) as api:
            api.auth_check(name)

    @contextmanager
    def _client(self, name: str, revision: str | None) -> Iterator[HfApi]:
        # The factory stays: whatever else of this process used the library would be guarded too.
        set_client_factory(lambda: httpx2.Client(transport=_Guarded(self._context, self.endpoint, self.credential)))
        try:
            with _our_errors(name, revision, self.token is not None, self.endpoint):
                yield HfApi(endpoint=self.endpoint, token=False)
        finally:
            close_session()


class _Guarded(httpx2.BaseTransport):
    """Answers the hub client's requests through our own client; it never sees the token."""

    def __init__(self, context: SourceContext, endpoint: str, credential: Credential | None) -> None:
        self._context = context
        self._base = f"{str(httpx2.URL(endpoint)).rstrip('/')}/"
        self._credential = credential

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "GET" or not str(request.url).startswith(self._base):
            raise NotAllowed(f"the client of Hugging Face wants to {request.method} elsewhere; refused")
        # None of its own headers: they tell which libraries are installed here.
        headers = {"Accept": "application/json"}
        url = str(request.url)
        answer = ask(self._context.http, url, self._credential, headers=headers, limits=self._context.limits)
        if answer.status < 400:
            answer.json()  # a page of a login or a proxy is said to be one before the client trips over it
        kept = [(name, value) for name, value in answer.headers.multi_items() if name in _READ_HEADERS]
        return httpx2.Response(answer.status, headers=kept, content=answer.body, request=request)


def _is_plain(path: str) -> bool:
    """Whether a path could stand in a git repository and on a terminal; what could not is as if it were not there."""
    return path.isprintable() and not {"", ".", ".."} & set(path.split("/"))


@contextmanager
def _our_errors(name: str, revision: str | None, with_token: bool, endpoint: str) -> Iterator[None]:
    page = f"{endpoint}/{name}"
    try:
        yield
    except ModelError:
        raise
    except GatedRepoError:
        ask_for = f"ask for access at {page}"
        token = (
            "the account of HF_TOKEN is not let in" if with_token else "then set HF_TOKEN to a token that may read"
        )
        raise NotAllowed(f"{name} is gated: {ask_for}; {token} ({endpoint}/settings/tokens)") from None
    except RepositoryNotFoundError:
        if with_token:
            raise BadReference(f"there is no repository {name} at {endpoint} that HF_TOKEN may see") from None
        hint = "the name is wrong, or it is private and HF_TOKEN is not set"
        raise NotAllowed(f"{endpoint} does not show {name} without a login: {hint}") from None
    except RevisionNotFoundError:
        raise BadReference(f"{name} has no revision {words(revision or 'main')}: see {page}/tree/main") from None
    except DisabledRepoError:
        raise NotAllowed(f"{name} was disabled by Hugging Face") from None
    except HfHubHTTPError as error:
        raise _other(error, name) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(f"{page}: the listing is not in its form: {where}: {first['msg']}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{page}: the listing is not in its form ({type(error).__name__})") from None


def _other(error: HfHubHTTPError, name: str) -> ModelError:
    status = error.response.status_code
    if status == 401:
        return NotAllowed("Hugging Face refuses HF_TOKEN: it is wrong or was revoked; set another, or unset it")
    if status in (403, 410, 451):
        return NotAllowed(f"Hugging Face answers {status} for {name}: {words(error.server_message or 'not allowed')}")
    if status in (400, 404):
        return BadReference(f"Hugging Face answers {status} for {name}: there is nothing of that name")
    return NetworkError(f"Hugging Face answers {status} for {name}")
