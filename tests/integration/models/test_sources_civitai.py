"""``civitai:`` references against the imitation: what they resolve to, and every refusal with its class."""

import json
import os
from dataclasses import replace
from typing import Any

import httpx
import pytest

from dreamforge.models import FileRole
from dreamforge_cli.models import reference
from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch.guard import open_client
from tests.integration.models.conftest import MakeContext
from tests.standins.civitai import CivitAI, File, Model, Version, unscanned
from tests.standins.faults import Fault, Place
from tests.standins.store import Content

SECRET = "civitai-canary-0123456789"
REF = "civitai:277058"


@pytest.fixture
def weights(civitai: CivitAI) -> bytes:
    data = os.urandom(300_001)
    civitai.add_checkpoint(277058, 456538, "epiCRealism XL", data, "V8-KiSS")
    return data


@pytest.mark.parametrize(
    "ref",
    [
        "civitai:277058",
        "civitai:456538",
        "civitai:277058@456538",
        "civitai:277058@v8-kiss",
        "civitai:@456538",
        "civitai:epicrealism-xl",
        "civitai:277058@456538#456538",
        "civitai:277058#*.safetensors",
        "https://civitai.com/models/277058/epicrealism-xl?modelVersionId=456538",
    ],
)
def test_all_forms_mean_the_same_file(civitai, weights, make_context: MakeContext, ref):
    found = reference.resolve(ref, make_context())
    assert (found.slug, found.version) == ("sdxl-epicrealism-xl", "v8-kiss-456538")
    assert (found.name, found.source_uri) == ("epiCRealism XL V8-KiSS", "civitai:277058@456538#456538")
    assert found.provenance.ids == {"model": "277058", "version": "456538", "file": "456538"}
    assert found.provenance.page == f"{civitai.url}/models/277058?modelVersionId=456538"
    assert found.provenance.license == "commercial use: Image; credit not required; derivatives allowed"
    (file,) = found.files
    assert (file.role, file.path) == (FileRole.CHECKPOINT, "epiCRealismXL_V8-KiSS.safetensors")
    assert (file.size_bytes, file.sha256) == (len(weights), Content(weights).sha256)
    assert httpx.get(file.url, follow_redirects=True).raise_for_status().content == weights
    assert reference.resolve(found.source_uri, make_context()).files == found.files


def test_an_explicit_file_of_many(civitai, make_context: MakeContext):
    full = File(2, "full.safetensors", Content(b"full"), size="full", fp="fp32")
    vae = File(3, "vae.safetensors", Content(b"vae"), type="VAE")
    pickle = File(4, "old.ckpt", Content(b"old"), format="PickleTensor")
    pruned = File(1, "pruned.safetensors", Content(b"pruned"), primary=True)
    civitai.add(Model(5, "Thing", [Version(6, "v2", [full, vae, pickle, pruned])]))
    found = {ref: reference.resolve(f"civitai:5{ref}", make_context()) for ref in ("", "#2", "#full*")}
    assert {ref: (one.version, one.files[0].path) for ref, one in found.items()} == {
        "": ("v2-6", "pruned.safetensors"),
        "#2": ("v2-6-2", "full.safetensors"),
        "#full*": ("v2-6-2", "full.safetensors"),
    }
    for ref, one in found.items():
        got = httpx.get(one.files[0].url, follow_redirects=True).content
        assert got == (b"full" if ref else b"pruned")
    for ref in ("#3", "#4", "#old.ckpt"):
        with pytest.raises(NotAllowed, match="no safetensors checkpoint"):
            reference.resolve(f"civitai:5{ref}", make_context())


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("civitai:1", BadReference, "neither a model nor a version 1 at"),
        ("civitai:@1", BadReference, "neither a model nor a version 1 at"),
        ("civitai:1@2", BadReference, "shows no model 1 at"),
        ("civitai:277058@1", BadReference, r"no version 1; there is: @456538 \(V8-KiSS\)"),
        ("civitai:nothing-of-that-name", BadReference, "no checkpoint called"),
        ("civitai:epicrealism", BadReference, r"name one by its id: civitai:277058 \(epiCRealism XL\)"),
        ("civitai:twin", BadReference, "more than one checkpoint called twin; name one by its id: civitai:11"),
        ("civitai:20", NotAllowed, "is a LORA"),
        ("civitai:21", NotAllowed, "made on SD 1.5"),
        ("civitai:22", NotAllowed, "archived"),
        ("civitai:23", NotAllowed, "no version that is public"),
        ("civitai:24", NotAllowed, "not downloaded"),
    ],
)
def test_references_that_lead_to_no_checkpoint(civitai, weights, make_context: MakeContext, ref, error, says):
    def version(number: int, **more: Any) -> Version:
        return replace(Version(number, "v1", [File(number, "x.safetensors", Content(b"x"))]), **more)

    civitai.add(Model(11, "Twin", [version(1100)]))
    civitai.add(Model(12, "twin", [version(1200)]))
    civitai.add(Model(20, "Lora", [version(2000)], type="LORA"))
    civitai.add(Model(21, "Old", [version(2100, base_model="SD 1.5")]))
    civitai.add(Model(22, "Gone", [version(2200)], mode="Archived"))
    civitai.add(Model(23, "Draft", [version(2300, status="Draft")]))
    civitai.add(Model(24, "Inside", [replace(version(2400), download=False)]))
    with pytest.raises(error, match=says):
        reference.resolve(ref, make_context())


@pytest.mark.parametrize(
    ("version", "token", "error", "says"),
    [
        ({"needs_login": True}, None, NotAllowed, "wants a login.*requires you to be logged in.*set CIVITAI_TOKEN"),
        ({"needs_login": True}, "unknown", NotAllowed, "refuses CIVITAI_TOKEN.*requires you to be logged in"),
        ({"downloads_disabled": True}, SECRET, NotAllowed, "has disabled downloads"),
        ({"early_access_until": "2999-01-01T00:00:00.000Z"}, None, NotAllowed, "early access until 2999-01-01"),
        ({"early_access_until": "2999-01-01T00:00:00.000Z"}, SECRET, NotAllowed, "Early Access.*until 2999-01-01"),
    ],
)
def test_downloads_that_are_refused_are_known_at_once(civitai, weights, make_context, version, token, error, says):
    civitai.tokens.add(SECRET)
    one = Version(8, "v1", [File(9, "x.safetensors", Content(b"x"))])
    civitai.add(Model(7, "Thing", [replace(one, **version)]))
    tokens = {} if token is None else {"CIVITAI_TOKEN": token}
    with pytest.raises(error, match=says) as raised:
        reference.resolve("civitai:7", make_context(**tokens))
    assert SECRET not in str(raised.value)


def test_a_login_or_bought_access_opens_them_and_the_token_stays_where_it_belongs(civitai, make_context: MakeContext):
    civitai.supporters.add(SECRET)
    file = File(9, "x.safetensors", Content(b"x"))
    civitai.add(
        Model(7, "T", [Version(8, "v1", [file], needs_login=True, early_access_until="2999-01-01T00:00:00Z")])
    )
    found = reference.resolve("civitai:7", make_context(CIVITAI_TOKEN=SECRET, HF_TOKEN="hf-token"))
    credential = found.files[0].credential
    assert credential is not None
    assert (credential.origin, credential.token.get_secret_value()) == (civitai.url, SECRET)
    assert SECRET not in repr(found) + found.provenance.model_dump_json() + found.files[0].url
    assert civitai.site.saw(SECRET)
    assert not any(SECRET in asked.target for asked in civitai.site.requests()), "a token in a query ends up in logs"
    assert not civitai.site.saw("hf-token")
    assert civitai.store.site.requests() == []


def test_unscanned_files_need_a_word_and_get_a_warning(civitai, make_context: MakeContext):
    file = File(9, "x.safetensors", Content(b"x"))
    civitai.add(Model(7, "Pending", [Version(8, "v1", [unscanned(file)])]))
    civitai.add(Model(17, "Bad", [Version(18, "v1", [replace(unscanned(file, "Danger"), id=19)])]))
    with pytest.raises(NotAllowed, match="--allow-unscanned"):
        reference.resolve("civitai:7", make_context())
    found = reference.resolve("civitai:7", make_context(allow_unscanned=True))
    assert found.warnings
    assert found.warnings[0].startswith("UNSCANNED: x.safetensors")
    for allow_unscanned in (False, True):
        with pytest.raises(NotAllowed, match="dangerous"):
            reference.resolve("civitai:17", make_context(allow_unscanned=allow_unscanned))


def test_a_file_without_sha256_is_refused_whatever_is_allowed(civitai, make_context: MakeContext):
    file = File(9, "x.safetensors", Content(b"x"), hashes={"AutoV2": "ABCDEF1234", "CRC32": "0"})
    civitai.add(Model(7, "T", [Version(8, "v1", [file])]))
    with pytest.raises(NotAllowed, match="no SHA256"):
        reference.resolve("civitai:7", make_context(allow_unscanned=True))


HOSTILE = "../../\x1b[31m\u202e\r\nevil"


def test_hostile_names_stay_names(civitai, make_context: MakeContext):
    file = File(9, f"{HOSTILE}.safetensors", Content(b"x"))
    civitai.add(Model(7, HOSTILE, [Version(8, HOSTILE, [file])]))
    found = reference.resolve("civitai:7", make_context())
    assert (found.slug, found.version, found.files[0].path) == (
        "sdxl-31m-evil",
        "31m-evil-8",
        "__31m___evil.safetensors",
    )
    assert found.name.isprintable()


def answer(**changed: object) -> bytes:
    file = {"id": 9, "name": "x.safetensors", "type": "Model", "metadata": {"format": "SafeTensor"}}
    version = {"id": 8, "name": "v1", "baseModel": "SDXL 1.0", "files": [file]}
    return json.dumps(
        {"id": 277058, "name": "T", "type": "Checkpoint", "modelVersions": [version]} | changed
    ).encode()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", NetworkError),
        (b"<html>Just a moment...</html>", NetworkError),
        (b"[" * 100_000, NetworkError),
        (b"null", IntegrityError),
        (b"[]", IntegrityError),
        (answer(id="x"), IntegrityError),
        (answer(name=None), IntegrityError),
        (answer(modelVersions=[{"id": 0}]), IntegrityError),
        (answer(modelVersions=[{"id": 8, "baseModel": "SDXL 1.0", "files": [{"id": 1}]}]), IntegrityError),
        (answer(modelVersions={}), IntegrityError),
        (answer(), NotAllowed),
        (b'{"a": "' + b"x" * (17 * 2**20) + b'"}', NetworkError),
    ],
    ids=range(12),
)
def test_answers_out_of_form(civitai, weights, make_context: MakeContext, body, error):
    civitai.faults.set(Place.FRONT, "model/277058", Fault(status=200, body=body))
    with pytest.raises(error) as raised:
        reference.resolve(REF, make_context())
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=401), NotAllowed),
        (Fault(status=403), NotAllowed),
        (Fault(status=410), NotAllowed),
        (Fault(status=500), NetworkError),
        (Fault(status=429, headers={"Retry-After": "1000000000"}), NetworkError),
        (Fault(login_page=True), NetworkError),
        (Fault(location="{self}"), NetworkError),
        (Fault(location="http://10.0.0.1/"), NotAllowed),
    ],
)
def test_the_api_in_trouble(civitai, weights, make_context: MakeContext, fault, error):
    civitai.faults.set(Place.FRONT, "model/277058", fault)
    with pytest.raises(error):
        reference.resolve(REF, make_context())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=401, body=b'{"error":"Unauthorized","message":"The creator requires a login"}'), NotAllowed),
        (Fault(status=401, body=b"<html>"), NotAllowed),
        (Fault(status=403, body=b'{"error":"Early Access","deadline":"2999-01-01"}'), NotAllowed),
        (Fault(status=403, body=b'{"error":["a"],"message":{"b":1}}'), NotAllowed),
        (Fault(status=404), BadReference),
        (Fault(status=410), NotAllowed),
        (Fault(status=500), NetworkError),
        (Fault(status=418), NetworkError),
    ],
)
def test_the_download_address_in_trouble(civitai, weights, make_context: MakeContext, fault, error):
    civitai.fault(Place.FRONT, 456538, 456538, fault)
    with pytest.raises(error):
        reference.resolve(REF, make_context())
    assert civitai.store.site.requests() == []


def test_trouble_that_passes_is_waited_out(civitai, weights, make_context: MakeContext):
    civitai.faults.set(Place.FRONT, "model/277058", Fault(status=503, times=2))
    civitai.fault(Place.FRONT, 456538, 456538, Fault(status=429, headers={"Retry-After": "0"}, times=1))
    assert reference.resolve(REF, make_context()).version == "v8-kiss-456538"


def test_a_source_at_a_private_address_is_not_even_asked(civitai, weights, make_context: MakeContext):
    with open_client() as client, pytest.raises(NotAllowed):
        reference.resolve(REF, replace(make_context(), http=client))
    assert civitai.site.requests() == []


def test_civitai_holds_no_configuration(make_context: MakeContext):
    with pytest.raises(ModelError, match="hold no configuration"):
        reference.configuration(REF, make_context())
