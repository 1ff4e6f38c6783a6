"""References: every form that means something, and the corpus of those that mean nothing."""

from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge_cli.models import reference
from dreamforge_cli.models.errors import BadReference, ModelError
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources import civitai, huggingface
from dreamforge_cli.models.sources.base import SourceContext

MEANINGLESS = [
    "",
    " ",
    "hf",
    "hf:",
    "hf:/",
    "hf://",
    "hf:x",
    "hf:a/b/c",
    "hf:../x",
    "hf:a/..",
    "hf:a/b..c",
    "hf:a--b/c",
    "hf:x@refs/pr/1",
    "hf:a/b@",
    "hf:a/b@../main",
    "hf:a/b@main/../x",
    "hf:a/b@refs//x",
    "hf:a/b#",
    "hf:a/b#../../x",
    "hf:a/b#x/../y.safetensors",
    "hf:a/b#/etc/passwd",
    "hf:a/b#..\\x.safetensors",
    "hf:a/b?token=x",
    "hf:a b/c",
    "hf:a/b\r\nHost: x",
    "hf:a/b\n",
    "hf:a/b\0",
    "hf:" + "a" * 97 + "/b",
    "hf:a/b@" + "c" * 600,
    "#*",
    "#../../x",
    "civitai:",
    "civitai:0",
    "civitai:-1",
    "civitai:00",
    "civitai:2147483648",
    "civitai:" + "9" * 300,
    "civitai:١٢٣",
    "civitai:slug?x=1",
    "civitai:slug&x=1",
    "civitai:a/b",
    "civitai:../x",
    "civitai:1@",
    "civitai:1@0",
    "civitai:1@-1#",
    "civitai:1@a/b",
    "civitai:@name",
    "civitai:1#",
    "civitai:1#../x",
    "civitai:%2e%2e",
    "file:",
    "file:/etc/passwd",
    "file:///etc/passwd",
    "http:",
    "http://",
    "http://civitai.com",
    "https://example.com/models/1",
    "https://huggingface.co/",
    "https://huggingface.co/datasets/a/b",
    "https://huggingface.co/a/b/commits/main",
    "https://civitai.com/user/x",
    "https://civitai.com/models/x",
    "https://user:pass@huggingface.co/a/b",
    "https://token@civitai.com/models/1",
    "https://huggingface.co:8443/a/b",
    "https://[::1]/a/b",
    "https://[::ffff:10.0.0.1]/a/b",
    "https://[",
    "https://huggingface.co:port/a/b",
    "https://xn--hggingface-p4a.co/a/b",
    "https://huggingface.co.evil.example/a/b",
    "//host/a",
    "user:pass@host",
    "ftp://x/y",
    "__class__:x",
    "nosuch:x",
    "HTTP://x",
    "\u202ehf:a/b",
]


@pytest.fixture(scope="module")
def context():
    endpoints = {"hf": "https://huggingface.co", "civitai": "https://civitai.com"}
    with open_client() as client:
        yield SourceContext(client, {}, endpoints)


@pytest.mark.parametrize("text", MEANINGLESS, ids=lambda text: ascii(text)[:60])
def test_what_means_nothing_is_wrong_usage_before_anything_is_asked(context, text):
    with pytest.raises(BadReference) as raised:
        reference.resolve(text, context)
    said = str(raised.value)
    assert said
    assert said.isprintable()
    assert len(said) < 400
    assert "pass@" not in said


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf:a/b", ("hf", "a/b")),
        ("HF:a/b", ("hf", "a/b")),
        (" hf:a/b ", ("hf", "a/b")),
        ("hf:a/b#a file.safetensors", ("hf", "a/b#a file.safetensors")),
        ("https://huggingface.co/a/b", ("hf", "a/b")),
        ("https://hf.co/a/b/", ("hf", "a/b")),
        ("https://huggingface.co/a/b/tree/main", ("hf", "a/b@main")),
        ("https://huggingface.co/a/b/blob/main/x/y.safetensors", ("hf", "a/b@main#x/y.safetensors")),
        ("https://hf.co/a/b/resolve/refs%2Fpr%2F1/y.safetensors?download=1", ("hf", "a/b@refs/pr/1#y.safetensors")),
        ("https://civitai.com/models/277058", ("civitai", "277058")),
        ("https://civitai.com/models/277058/epicrealism-xl", ("civitai", "277058")),
        ("https://civitai.com/models/277058?modelVersionId=1&token=secret", ("civitai", "277058@1")),
        ("https://civitai.com/api/download/models/456538?token=secret&fileId=9", ("civitai", "@456538#9")),
        ("thing:x", ("thing", "x")),
    ],
)  # fmt: skip
def test_addresses_from_a_browser_are_references_too(text, meant):
    assert reference.split(text) == meant


@pytest.mark.parametrize(
    ("rest", "asked"),
    [
        ("a/b", huggingface.Asked("a/b")),
        ("a/b@main", huggingface.Asked("a/b", "main")),
        ("a/b@refs/pr/1#x.safetensors", huggingface.Asked("a/b", "refs/pr/1", "x.safetensors")),
        ("a/b#sub/*.safetensors", huggingface.Asked("a/b", None, "sub/*.safetensors")),
        ("a/b#x#y.safetensors", huggingface.Asked("a/b", None, "x#y.safetensors")),
        ("//a/b", huggingface.Asked("a/b")),
        ("//models/a/b", huggingface.Asked("a/b")),
        ("//a/b@main/sub/x.safetensors", huggingface.Asked("a/b", "main", "sub/x.safetensors")),
        ("//a/b@refs/pr/3/x.safetensors", huggingface.Asked("a/b", "refs/pr/3", "x.safetensors")),
        ("//a/b/sub/x.safetensors", huggingface.Asked("a/b", None, "sub/x.safetensors")),
        ("//a/b@main#x.safetensors", huggingface.Asked("a/b", "main", "x.safetensors")),
    ],
)
def test_both_forms_of_hugging_face_come_apart(rest, asked):
    assert huggingface.parse(rest) == asked


class Other:
    """A source of another package."""

    def __init__(self, context: SourceContext) -> None:
        self.context = context

    def resolve(self, rest: str) -> str:
        return f"resolved {rest}"


def test_another_package_adds_a_source_by_an_entry_point(context, monkeypatch):
    entry = metadata.EntryPoint("other", f"{__name__}:Other", "dreamforge.model_sources")
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [entry] if wanted.get("name") == "other" else [])
    assert str(reference.resolve("other:thing", context)) == "resolved thing"
    with pytest.raises(BadReference, match="hold no configuration"):
        reference.configuration("other:thing", context)


def test_a_source_that_does_not_load_is_named(context, monkeypatch):
    entry = metadata.EntryPoint("broken", "no_such_package:X", "dreamforge.model_sources")
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [entry])
    with pytest.raises(ModelError, match=r"'broken'.*can't be loaded"):
        reference.resolve("broken:thing", context)


def test_two_packages_do_not_share_a_scheme(context, monkeypatch):
    entries = [metadata.EntryPoint("hf", value, "dreamforge.model_sources") for value in ("a:A", "b:B")]
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: entries)
    with pytest.raises(ModelError, match="two packages"):
        reference.resolve("hf:a/b", context)


def test_the_sources_of_this_package_are_found():
    assert {"hf", "civitai"} <= set(reference.schemes())


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(hf|civitai|https?|HF)://?[ -~]{0,60}", fullmatch=True)))
def test_any_text_is_a_reference_or_wrong_usage(text):
    """And what comes apart stays below the bounds of a path or an address: no part climbs, none is empty."""
    asked: object = None
    said = ""
    try:
        scheme, rest = reference.split(text)
        asked = {"hf": huggingface.parse, "civitai": civitai.parse}.get(scheme, str)(rest)
    except BadReference as refused:
        said = str(refused)
    assert said.isprintable()
    if isinstance(asked, huggingface.Asked):
        assert asked.repository.count("/") == 1
        assert ".." not in f"{asked.repository}/{asked.revision}".split("/")
        assert ".." not in (asked.file or "").split("/")
    if isinstance(asked, civitai.Asked):
        assert asked.main or asked.version
        assert "/" not in asked.main + (asked.version or "") + (asked.file or "")
