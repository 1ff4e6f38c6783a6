"""``hf:`` references against the imitation: what they resolve to, and every refusal with its class."""

import hashlib
import json
import os
from dataclasses import replace

import httpx
import pytest

from dreamforge.models import FileRole
from dreamforge_cli.models import reference
from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources.base import ResolvedFile
from tests.integration.models.conftest import MakeContext
from tests.standins.faults import Fault, Place
from tests.standins.huggingface import HuggingFace

CONFIG = {
    "model_index.json": b'{"_class_name": "StableDiffusionXLPipeline"}',
    "scheduler/scheduler_config.json": b"{}",
    "unet/config.json": b'{"unet": 1}',
    "vae/config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder_2/config.json": b"{}",
    "tokenizer/vocab.json": b"v" * 150_000,
    "tokenizer/merges.txt": b"m",
    "tokenizer_2/tokenizer.json": b"{}",
}
EXTRA = {"README.md": b"# x", "unet/diffusion_pytorch_model.safetensors": b"w" * 200, "run.py": b"print()"}
SECRET = "hf_canary-0123456789"


@pytest.fixture
def base(hf: HuggingFace) -> bytes:
    weights = os.urandom(300_000)
    hf.add("owner/thing-xl", {"thing.safetensors": weights, **CONFIG, **EXTRA}, revisions={"main", "v1", "refs/pr/1"})
    return weights


def fetched(file: ResolvedFile) -> bytes:
    """The file as anybody would get it."""
    return httpx.get(file.url, follow_redirects=True).raise_for_status().content


def test_a_repository_resolves_to_its_checkpoint_and_configuration(hf, base, make_context: MakeContext):
    found = reference.resolve("hf:owner/thing-xl@v1", make_context())
    commit = found.provenance.commit
    assert (found.slug, found.version, found.name) == ("sdxl-thing-xl", str(commit)[:12], "thing-xl")
    assert found.source_uri == f"hf:owner/thing-xl@{commit}#thing.safetensors"
    assert (found.provenance.revision, found.provenance.license) == ("v1", "openrail++")
    assert found.provenance.page == f"{hf.url}/owner/thing-xl"
    checkpoint, *config = found.files
    assert (checkpoint.role, checkpoint.path) == (FileRole.CHECKPOINT, "thing.safetensors")
    assert checkpoint.sha256 == hashlib.sha256(base).hexdigest()
    assert (checkpoint.size_bytes, checkpoint.credential) == (len(base), None)
    assert {file.path for file in config} == {f"config/{path}" for path in CONFIG}
    assert fetched(checkpoint) == base
    for file in config:
        data = fetched(file)
        assert data == CONFIG[file.path.removeprefix("config/")]
        assert file.size_bytes == len(data)
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        assert (file.git_blob, file.sha256) in ((blob, None), (None, hashlib.sha256(data).hexdigest()))


def test_the_source_uri_gives_the_same_again(base, make_context: MakeContext):
    first = reference.resolve("hf://owner/thing-xl@refs/pr/1/thing.safetensors", make_context())
    again = reference.resolve(first.source_uri, make_context())
    assert (again.slug, again.version, again.source_uri, again.files) == (
        first.slug,
        first.version,
        first.source_uri,
        first.files,
    )


def test_a_renamed_repository_is_followed_and_named_by_its_new_name(hf, base, make_context: MakeContext):
    hf.rename("owner/old", "owner/thing-xl")
    found = reference.resolve("hf:owner/old", make_context())
    assert found.source_uri.startswith("hf:owner/thing-xl@")


def test_a_configuration_comes_without_weights(hf, base, make_context: MakeContext):
    commit = hf.commit_of("owner/thing-xl")
    found = reference.configuration(f"hf:owner/thing-xl@{commit}", make_context())
    assert found.source_uri == f"hf:owner/thing-xl@{commit}"
    assert {file.path for file in found.files} == {f"config/{path}" for path in CONFIG}
    assert {file.role for file in found.files} == {FileRole.CONFIG}
    hf.add("owner/bare", {"x.safetensors": b"1"})
    with pytest.raises(BadReference, match="no whole configuration"):
        reference.configuration("hf:owner/bare", make_context())


def test_a_huge_configuration_is_none(hf, make_context: MakeContext):
    hf.add("owner/huge", {"x.safetensors": b"1", **CONFIG, "tokenizer/vocab.json": bytes(17 * 2**20)})
    with pytest.raises(NotAllowed, match="too large"):
        reference.resolve("hf:owner/huge", make_context())


def test_epicrealism_gets_the_name_that_is_the_default(hf, make_context: MakeContext):
    hf.add("someone/epiCRealismXL-mirror", {"epicrealismXL_v8.safetensors": b"1"})
    assert reference.resolve("hf:someone/epiCRealismXL-mirror", make_context()).slug == "sdxl-epicrealism-xl"


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("hf:owner/nothing", NotAllowed, "name is wrong, or it is private"),
        ("hf:owner/thing-xl@nope", BadReference, "no revision nope"),
        ("hf:owner/thing-xl@" + "0" * 40, BadReference, "no revision"),
        ("hf:owner/thing-xl#nope", BadReference, "no checkpoint nope; there is: #thing.safetensors"),
        ("hf:owner/thing-xl#README.md", NotAllowed, "README.md is no .safetensors"),
        ("hf:owner/thing-xl#run.py", NotAllowed, "run.py is no .safetensors"),
        ("hf:owner/gated", NotAllowed, "is gated: ask for access"),
        ("hf:owner/private", NotAllowed, "private"),
        ("hf:owner/disabled", NotAllowed, "disabled"),
        ("hf:owner/pickles", NotAllowed, "can run code"),
        ("hf:owner/many", BadReference, "2 checkpoints that fit"),
        ("hf:owner/no-lfs", NotAllowed, "tells no sha256"),
    ],
)
def test_refusals_without_a_token(hf, base, make_context: MakeContext, ref, error, says):
    hf.add("owner/gated", {"x.safetensors": b"1"}, gated="manual")
    hf.add("owner/private", {"x.safetensors": b"1"}, private=True)
    hf.add("owner/disabled", {"x.safetensors": b"1"}, disabled=True)
    hf.add("owner/pickles", {"x.ckpt": b"1", "y.bin": b"2"})
    hf.add("owner/many", {"x.safetensors": b"1", "y.safetensors": b"2"})
    hf.add("owner/no-lfs", {"x.safetensors": b"1"}, lfs_suffixes=())
    with pytest.raises(error, match=says):
        reference.resolve(ref, make_context())


@pytest.mark.parametrize(
    ("known", "member", "ref", "error", "says"),
    [
        (False, False, "hf:owner/thing-xl", NotAllowed, "refuses HF_TOKEN"),
        (True, False, "hf:owner/gated", NotAllowed, "the account of HF_TOKEN is not let in"),
        (True, True, "hf:owner/nothing", BadReference, "no repository owner/nothing"),
    ],
)
def test_refusals_with_a_token(hf, base, make_context: MakeContext, known, member, ref, error, says):
    hf.add("owner/gated", {"x.safetensors": b"1"}, gated="auto")
    hf.tokens |= {SECRET} if known else set()
    hf.members |= {SECRET} if member else set()
    with pytest.raises(error, match=says) as raised:
        reference.resolve(ref, make_context(HF_TOKEN=SECRET))
    assert SECRET not in f"{raised.value!r} {raised.getrepr(style='long', showlocals=False)}"


def test_a_member_gets_a_gated_checkpoint_and_the_token_is_in_nothing_that_is_written(hf, make_context: MakeContext):
    hf.add("owner/gated", {"x.safetensors": b"1"}, gated="auto", private=True)
    hf.tokens.add(SECRET)
    hf.members.add(SECRET)
    found = reference.resolve("hf:owner/gated", make_context(HF_TOKEN=SECRET, CIVITAI_TOKEN="other"))
    (file,) = found.files
    assert file.credential is not None
    assert file.credential.origin == hf.url
    assert SECRET not in repr(found) + found.provenance.model_dump_json() + file.url
    assert hf.site.saw(SECRET)
    assert not hf.site.saw("other")


def with_lfs(**changed: object) -> dict[str, object]:
    lfs = {"sha256": "b" * 64, "size": 1, "pointerSize": 130} | changed
    return {"rfilename": "x.safetensors", "size": 1, "blobId": "a" * 40, "lfs": lfs}


def shaped(**changed: object) -> bytes:
    listing: dict[str, object] = {"id": "owner/thing-xl", "sha": "c" * 40, "siblings": [with_lfs()]}
    return json.dumps(listing | changed).encode()


BROKEN = [
    (b"", NetworkError),
    (b"<!DOCTYPE html><title>Log in</title>", NetworkError),
    (b"{" * 100_000, NetworkError),
    (b"[NaN]", NetworkError),
    (b"\xff\xfe{}", NetworkError),
    (b"null", IntegrityError),
    (b"[]", IntegrityError),
    (b"{}", IntegrityError),
    (shaped(sha="main"), IntegrityError),
    (shaped(sha=None), IntegrityError),
    (shaped(id="../../x"), IntegrityError),
    (shaped(id="owner/thing\nxl"), IntegrityError),
    (shaped(siblings=None), IntegrityError),
    (shaped(siblings=[{"rfilename": 7}]), IntegrityError),
    (shaped(siblings=[{"size": 1}]), IntegrityError),
    (shaped(siblings=[with_lfs(sha256="z")]), IntegrityError),
    (shaped(siblings=[with_lfs(size=-1)]), IntegrityError),
    (shaped(siblings=[with_lfs(size="many")]), IntegrityError),
    (shaped(siblings=[{"rfilename": "x\x1b[2J.safetensors", "size": 1}]), BadReference),
    (shaped(siblings=[{"rfilename": "../x.safetensors", "size": 1}]), BadReference),
    (b'{"a": "' + b"x" * (17 * 2**20) + b'"}', NetworkError),
]


@pytest.mark.parametrize(("body", "error"), BROKEN, ids=range(len(BROKEN)))
def test_listings_out_of_form(hf, base, make_context: MakeContext, body, error):
    hf.fault(Place.FRONT, "owner/thing-xl", "", Fault(status=200, body=body))
    with pytest.raises(error) as raised:
        reference.resolve("hf:owner/thing-xl", make_context())
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        (Fault(status=500), NetworkError, 3),
        (Fault(status=503, headers={"Retry-After": "0"}), NetworkError, 3),
        (Fault(status=429, headers={"Retry-After": "1000000000"}), NetworkError, 1),
        (Fault(status=429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}), NetworkError, 1),
        (Fault(status=404), BadReference, 1),
        (Fault(status=403), NotAllowed, 1),
        (Fault(status=410), NotAllowed, 1),
        (Fault(status=418), NetworkError, 1),
        (Fault(location="{self}"), NetworkError, 6),
        (Fault(location="http://169.254.169.254/latest"), NotAllowed, 1),
        (Fault(location="file:///etc/passwd"), NotAllowed, 1),
        (Fault(location="http://[::1"), NetworkError, 3),
        (Fault(gzip_zeros=2**30), NetworkError, 1),
        (Fault(status=200, headers={"Content-Encoding": "gzip"}, body=b"no gzip"), NetworkError, 1),
        (Fault(stall_at=0.5), NetworkError, 3),
    ],
)
def test_the_api_in_trouble(hf, base, make_context: MakeContext, fault, error, requests):
    hf.fault(Place.FRONT, "owner/thing-xl", "", fault)
    with pytest.raises(error):
        reference.resolve("hf:owner/thing-xl", make_context())
    assert len(hf.site.requests(containing="/api/models/")) == requests


@pytest.mark.parametrize(
    "fault", [Fault(status=500, times=2), Fault(status=429, times=1, headers={"Retry-After": "0"})]
)
def test_trouble_that_passes_is_waited_out(hf, base, make_context: MakeContext, fault):
    hf.fault(Place.FRONT, "owner/thing-xl", "", fault)
    assert reference.resolve("hf:owner/thing-xl", make_context()).slug == "sdxl-thing-xl"


def test_an_api_that_points_to_another_host_is_not_followed_and_tells_it_nothing(hf, base, make_context: MakeContext):
    hf.tokens.add(SECRET)
    elsewhere = f"{hf.store.site.url}/elsewhere?q={SECRET}"
    hf.fault(Place.FRONT, "owner/thing-xl", "", Fault(location=elsewhere))
    with pytest.raises(NotAllowed):
        reference.resolve("hf:owner/thing-xl", make_context(HF_TOKEN=SECRET))
    assert hf.store.site.requests() == []


def test_a_commit_that_is_answered_by_another_is_refused(hf, base, make_context: MakeContext):
    hf.fault(Place.FRONT, "owner/thing-xl", "", Fault(status=200, body=shaped()))
    with pytest.raises(IntegrityError, match="was asked for"):
        reference.resolve("hf:owner/thing-xl@" + "d" * 40, make_context())


def test_a_source_that_is_not_there(hf, make_context: MakeContext):
    context = make_context()
    context.endpoints["hf"] = "http://127.0.0.1:1"
    with pytest.raises(ModelError, match="refused"):
        reference.resolve("hf:owner/thing-xl", context)


def test_a_source_at_a_private_address_is_not_even_asked(hf, base, make_context: MakeContext):
    with open_client() as client, pytest.raises(NotAllowed):
        reference.resolve("hf:owner/thing-xl", replace(make_context(), http=client))
    assert hf.site.requests() == []


def test_what_a_source_warns_of_does_not_reach_the_terminal(hf, base, make_context: MakeContext, capfd, caplog):
    listing = Fault(
        status=403, body=b"{}", headers={"X-HF-Warning": "topic; \x1b[2J", "X-Error-Message": "no\x1b[2J"}
    )
    hf.fault(Place.FRONT, "owner/thing-xl", "", listing)
    with pytest.raises(NotAllowed) as raised:
        reference.resolve("hf:owner/thing-xl", make_context())
    assert str(raised.value).isprintable()
    assert "\x1b" not in "".join(capfd.readouterr()) + caplog.text
