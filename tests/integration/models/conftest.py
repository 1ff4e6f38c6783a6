"""Both sources on loopback, and what an adapter is given to reach them."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.fetch.limits import Limits
from dreamforge_cli.models.sources.base import SourceContext
from tests.standins.civitai import CivitAI
from tests.standins.huggingface import HuggingFace

#: As patient as the real ones, in less time.
LIMITS = Limits(
    stall_seconds=0.8, tries=3, pause_seconds=0.01, longest_pause_seconds=0.02, longest_retry_after_seconds=2
)

MakeContext = Callable[..., SourceContext]


@pytest.fixture
def hf() -> Iterator[HuggingFace]:
    site = HuggingFace()
    yield site
    site.close()


@pytest.fixture
def civitai() -> Iterator[CivitAI]:
    site = CivitAI()
    yield site
    site.close()


@pytest.fixture
def make_context(hf: HuggingFace, civitai: CivitAI) -> Iterator[MakeContext]:
    """``make_context(HF_TOKEN="...", allow_unscanned=True)``: the imitations are allowed hosts."""
    with open_client([*hf.authorities, *civitai.authorities]) as client:

        def make(*, allow_unscanned: bool = False, **tokens: str) -> SourceContext:
            endpoints = {"hf": hf.url, "civitai": civitai.url}
            secrets = {name: SecretStr(token) for name, token in tokens.items()}
            return SourceContext(client, secrets, endpoints, allow_unscanned, LIMITS)

        yield make


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of models.example in one file, signed by itself."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=models.example", "-addext", "subjectAltName=DNS:models.example"]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path
