"""What CivitAI's answers mean, and what is not fetched."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge_cli.models.errors import BadReference, ModelError, NotAllowed
from dreamforge_cli.models.sources import civitai, civitai_rules
from dreamforge_cli.models.sources.civitai_api import File, Model, Version

NAMES = ["id", "name", "type", "mode", "modelVersions", "files", "hashes", "SHA256", "metadata", "format", "sizeKB",
         "primary", "baseModel", "earlyAccessEndsAt", "usageControl", "pickleScanResult"]  # fmt: skip
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def file(number: int = 1, **told: object) -> File:
    facts = {
        "id": number,
        "sizeKB": 6775430.353515625,
        "name": f"thing{number}.safetensors",
        "type": "Model",
        "pickleScanResult": "Success",
        "virusScanResult": "Success",
        "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"},
        "hashes": {"SHA256": "AB" * 32},
    }
    return File.model_validate(facts | told)


def version(*files: File, **told: object) -> Version:
    return Version.model_validate({"id": 7, "name": "v1.0", "baseModel": "SDXL 1.0", "files": files} | told)


def model(*versions: Version, **told: object) -> Model:
    facts = {"id": 5, "name": "Thing", "type": "Checkpoint", "modelVersions": versions}
    return Model.model_validate(facts | told)


@pytest.mark.parametrize(
    ("rest", "asked"),
    [
        ("1", civitai.Asked("1")),
        ("1@2", civitai.Asked("1", "2")),
        ("1@v2.0 (new)", civitai.Asked("1", "v2.0 (new)")),
        ("1@2#3", civitai.Asked("1", "2", "3")),
        ("@2", civitai.Asked("", "2")),
        ("a-slug", civitai.Asked("a-slug")),
        ("//a-slug@2", civitai.Asked("a-slug", "2")),
        ("1#*fp32*", civitai.Asked("1", None, "*fp32*")),
    ],
)
def test_references_come_apart(rest, asked):
    assert civitai.parse(rest) == asked


def test_sizes_are_exact_or_unknown():
    assert file().size_bytes == 6938040682
    assert file(sizeKB=100).size_bytes == 102400
    assert file(sizeKB=1234.47).size_bytes is None
    assert file(sizeKB=None).size_bytes is None


def test_a_hash_is_in_form_or_not_there():
    assert file().sha256 == "ab" * 32
    told: list[object] = [{}, {"SHA256": "AB"}, {"SHA256": None}, {"AutoV2": "AB"}, {"SHA256": "Z" * 64}, None, []]
    for hashes in told:
        assert file(hashes=hashes).sha256 is None


@pytest.mark.parametrize(
    ("files", "wanted", "chosen"),
    [
        ([file(1)], None, 1),
        ([file(1), file(2, primary=True)], None, 2),
        ([file(1), file(2, primary=True)], "1", 1),
        ([file(1), file(2, primary=True)], "THING1*", 1),
        ([file(1, primary=True, metadata={"format": "PickleTensor"}, name="a.ckpt"), file(2)], None, 2),
        ([file(1, type="VAE"), file(2)], None, 2),
        ([file(1, type="Pruned Model")], None, 1),
    ],
)
def test_one_file_is_meant(files, wanted, chosen):
    assert civitai_rules.choose(model(), version(*files), wanted).id == chosen


@pytest.mark.parametrize(
    ("files", "wanted", "error", "says"),
    [
        (
            [file(1), file(2)],
            None,
            BadReference,
            "2 files fit; add one of these: #1 (thing1.safetensors, pruned fp16",
        ),
        ([file(1), file(2, primary=True)], "*", BadReference, "2 files fit"),
        ([file(1)], "9", BadReference, "no file 9; there is: #1"),
        ([], None, BadReference, "no file"),
        ([file(1, metadata={"format": "PickleTensor"})], None, NotAllowed, "only: Model as PickleTensor"),
        ([file(1, name="a.ckpt")], None, NotAllowed, "no safetensors checkpoint"),
        ([file(1, name="a.zip", type="Archive", metadata={"format": "Other"})], "1", NotAllowed, "Archive as Other"),
        ([file(1, type="Training Data")], None, NotAllowed, "Training Data"),
    ],
)
def test_what_is_not_one_file_is_said(files, wanted, error, says):
    with pytest.raises(error) as raised:
        civitai_rules.choose(model(), version(*files), wanted)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("of_model", "of_version", "says"),
    [
        ({"mode": "Archived"}, {}, "archived"),
        ({"mode": "TakenDown"}, {}, "taken down"),
        ({"type": "LORA"}, {}, "is a LORA"),
        ({"type": "TextualInversion"}, {}, "is a TextualInversion"),
        ({}, {"baseModel": "SD 1.5"}, "made on SD 1.5"),
        ({}, {"baseModel": "Flux.1 D"}, "made on Flux.1 D"),
        ({}, {"baseModel": "Pony V7"}, "made on Pony V7"),
        ({}, {"baseModel": None}, "made on unknown"),
        ({}, {"usageControl": "InternalGeneration"}, "not downloaded"),
        ({}, {"earlyAccessEndsAt": "2026-07-01T00:00:00.000Z"}, "early access until 2026-07-01 00:00 UTC"),
    ],
)
def test_models_that_may_not_or_can_not_be_used_are_refused(of_model, of_version, says):
    with pytest.raises(NotAllowed, match=says):
        civitai_rules.check_model(model(**of_model), version(**of_version), NOW, with_token=False)


@pytest.mark.parametrize(
    "told",
    [
        {"baseModel": "SDXL 1.0"},
        {"baseModel": "SDXL Lightning"},
        {"baseModel": "Pony"},
        {"baseModel": "Illustrious"},
        {"baseModel": "NoobAI"},
        {"earlyAccessEndsAt": "2026-05-01T00:00:00"},
        {"earlyAccessEndsAt": "soon"},
        {"usageControl": "Download"},
    ],
)
def test_models_of_the_family_are_taken(told):
    civitai_rules.check_model(model(), version(**told), NOW, with_token=False)


def test_early_access_may_be_bought():
    bought = version(earlyAccessEndsAt="2026-07-01T00:00:00.000Z")
    civitai_rules.check_model(model(), bought, NOW, with_token=True)


def test_versions_of_sdxl_are_named_when_another_one_was_meant():
    old, new = version(id=8, name="old", baseModel="SD 1.5"), version(id=9, name="new")
    with pytest.raises(NotAllowed, match=r"these versions are: @9 \(new\)"):
        civitai_rules.check_model(model(old, new), old, NOW, with_token=False)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"hashes": {"AutoV2": "ABCDEF1234"}}, "no SHA256"),
        ({"pickleScanResult": "Pending"}, "pickle scan: Pending"),
        ({"virusScanResult": "Error"}, "virus scan: Error"),
        ({"virusScanResult": None}, "virus scan: none"),
        ({"pickleScanResult": "success"}, "pickle scan: success"),
        ({"virusScanResult": "Danger"}, "dangerous"),
    ],
)
def test_files_that_nobody_vouches_for_are_refused(told, says):
    with pytest.raises(NotAllowed, match=says):
        civitai_rules.check_file(file(**told), allow_unscanned=False)


def test_an_unscanned_file_may_be_wanted_all_the_same_and_is_said_loudly():
    (warning,) = civitai_rules.check_file(file(pickleScanResult="Pending"), allow_unscanned=True)
    assert warning.startswith("UNSCANNED")
    assert civitai_rules.check_file(file(), allow_unscanned=True) == ()


@pytest.mark.parametrize("told", [{"hashes": {}}, {"virusScanResult": "Danger"}])
def test_neither_a_missing_hash_nor_a_found_danger_is_waved_through(told):
    with pytest.raises(NotAllowed):
        civitai_rules.check_file(file(**told), allow_unscanned=True)


@pytest.mark.parametrize(
    ("name", "of_file", "others", "called"),
    [
        ("v1.0", {"primary": True}, 1, "v1.0-7"),
        ("V8-KiSS ♥", {"primary": True}, 0, "v8-kiss-7"),
        ("★", {}, 0, "7"),
        ("v1.0", {}, 1, "v1.0-7-1"),
        ("x" * 100, {}, 1, "x" * 36 + "-7-1"),
        ("../..", {}, 0, "7"),
    ],
)
def test_versions_are_called_by_name_and_id(name, of_file, others, called):
    one = file(1, **of_file)
    assert civitai_rules.version_name(version(one, *[file(2)] * others, name=name), one) == called


def test_versions_are_found_by_id_and_by_name():
    first, second = version(id=8, name="v2"), version(id=9, name="V1")
    both = model(first, second)
    assert civitai_rules.pick_version(both, None) is both.versions[0]
    assert civitai_rules.pick_version(both, "9").id == 9
    assert civitai_rules.pick_version(both, "v1").id == 9
    with pytest.raises(BadReference, match=r"no version v3; there is: @8 \(v2\), @9 \(V1\)"):
        civitai_rules.pick_version(both, "v3")
    with pytest.raises(NotAllowed, match="no version that is public"):
        civitai_rules.pick_version(model(), None)


def test_what_a_creator_allows_is_noted():
    told = model(allowCommercialUse=["Image", "Rent"], allowNoCredit=False, allowDerivatives=True)
    assert told.license == "commercial use: Image, Rent; credit required; derivatives allowed"
    assert model().license is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@given(JSON)
def test_any_answer_is_a_model_or_an_error_of_ours(value):
    """Whatever a stranger's JSON is, nothing but our own errors comes out of looking at it."""
    facts = {"id": 5, "name": "Thing", "type": "Checkpoint", "modelVersions": [{"id": 7, "baseModel": "SDXL 1.0"}]}
    for told in (value, {**facts, **value} if isinstance(value, dict) else facts):
        said = ""
        try:
            found = civitai.shaped(Model, told)
            chosen = civitai_rules.pick_version(found, None)
            civitai_rules.check_model(found, chosen, NOW, with_token=False)
            one = civitai_rules.choose(found, chosen, None)
            civitai_rules.check_file(one, allow_unscanned=True)
        except ModelError as refused:
            said = str(refused)
        assert said.isprintable()
