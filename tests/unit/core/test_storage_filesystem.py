"""What only the filesystem store can get wrong: links, crashes, sidecars, full disks."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.storage.base import DiskFull, ObjectNotFound, StorageError, StorageUnavailable
from dreamforge.storage.filesystem import FilesystemStore

KEY = "jobs/a/1.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path) -> FilesystemStore:
    return FilesystemStore(root, "a signing key of the tests")


def put(store: FilesystemStore, key: str = KEY, data: bytes = b"bytes") -> None:
    store.put(key, data, content_type="image/png", sha256=hashlib.sha256(data).hexdigest(), metadata={"a": "b"})


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_object_is_a_plain_file_at_its_key(store: FilesystemStore, root: Path) -> None:
    put(store)
    assert (root / KEY).read_bytes() == b"bytes"
    assert store.path_of(KEY) == root / KEY
    assert files_below(root) == {KEY, f".meta/{KEY}@.json", ".lock"}
    assert root.stat().st_mode & 0o077 == 0


def test_delete_leaves_no_folder_behind(store: FilesystemStore, root: Path) -> None:
    put(store)
    put(store, "jobs/b.png")
    store.delete(KEY)
    assert sorted(path.name for path in (root / "jobs").iterdir()) == ["b.png"]
    assert sorted(path.name for path in (root / ".meta/jobs").iterdir()) == ["b.png@.json"]
    store.delete("jobs/b.png")
    assert sorted(path.name for path in root.iterdir()) == [".lock", ".tmp"]


def test_two_objects_whose_sidecars_look_alike(store: FilesystemStore) -> None:
    put(store, "a", b"1")
    put(store, "a.json/b", b"2")
    put(store, "a.json-b", b"3")
    assert [store.get(info.key) for info in store.list("")] == [b"1", b"3", b"2"]


@pytest.mark.parametrize("key", ["out/secret.png", "out/deeper/new.png"])
def test_a_linked_folder_is_never_followed(store: FilesystemStore, root: Path, tmp_path: Path, key: str) -> None:
    outside = tmp_path / "outside"
    (outside / "deeper").mkdir(parents=True)
    (outside / "secret.png").write_bytes(b"secret")
    root.mkdir()
    (root / "out").symlink_to(outside, target_is_directory=True)
    assert store.head(key) is None
    for read in (store.get, store.path_of):
        with pytest.raises(ObjectNotFound):
            read(key)
    with pytest.raises(StorageError):
        put(store, key)
    store.delete(key)
    assert list(store.list("")) == list(store.list("out/")) == []
    assert files_below(outside) == {"secret.png"}
    assert list((root / ".tmp").iterdir()) == []


def test_a_linked_file_is_not_an_object_and_put_replaces_the_link(
    store: FilesystemStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "jobs/a").mkdir(parents=True)
    (root / KEY).symlink_to(tmp_path / "secret")
    assert store.head(KEY) is None
    with pytest.raises(ObjectNotFound):
        store.get(KEY)
    assert list(store.list("")) == []
    put(store)
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert store.get(KEY) == b"bytes"
    assert not (root / KEY).is_symlink()


def test_a_linked_sidecar_is_not_read(store: FilesystemStore, root: Path, tmp_path: Path) -> None:
    put(store)
    side = root / f".meta/{KEY}@.json"
    side.rename(tmp_path / "side.json")
    side.symlink_to(tmp_path / "side.json")
    found = store.head(KEY)
    assert found is not None
    assert found.sha256 is None


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "objects").symlink_to(tmp_path / "disk", target_is_directory=True)
    put(FilesystemStore(tmp_path / "objects"))
    assert (tmp_path / "disk" / KEY).read_bytes() == b"bytes"


def test_a_pipe_at_a_key_blocks_nobody(store: FilesystemStore, root: Path) -> None:
    (root / "jobs/a").mkdir(parents=True)
    os.mkfifo(root / KEY)
    assert store.head(KEY) is None
    assert list(store.list("")) == []


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"sha256": 3}'])
def test_without_a_readable_sidecar_the_object_is_there_and_its_digest_is_not(
    store: FilesystemStore, root: Path, text: str | None
) -> None:
    put(store)
    side = root / f".meta/{KEY}@.json"
    if text is None:
        side.unlink()
    else:
        side.write_text(text)
    found = store.head(KEY)
    assert found is not None
    assert (found.size_bytes, found.sha256, found.content_type, found.metadata) == (5, None, None, {})
    assert store.get(KEY) == b"bytes"


def test_a_sidecar_of_other_bytes_is_not_believed(store: FilesystemStore, root: Path) -> None:
    """A crash between the two renames leaves new bytes beside the old sidecar; their sizes may be equal."""
    put(store)
    (root / "new").write_bytes(b"BYTES")
    (root / "new").rename(root / KEY)
    found = store.head(KEY)
    assert found is not None
    assert found.sha256 is None


def test_a_writer_killed_between_the_renames_leaves_no_wrong_digest(store: FilesystemStore, root: Path) -> None:
    put(store)
    program = """
import hashlib, os, signal, sys
from pathlib import Path
from dreamforge.storage.filesystem import FilesystemStore
rename, done = os.rename, []
def rename_once(*args, **kwargs):
    rename(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename_once
data = b"other"
FilesystemStore(Path(sys.argv[1])).put(
    sys.argv[2], data, content_type="image/png", sha256=hashlib.sha256(data).hexdigest())
"""
    killed = subprocess.run([sys.executable, "-c", program, str(root), KEY], check=False)
    assert killed.returncode == -9
    found = store.head(KEY)
    assert found is not None
    assert (store.get(KEY), found.sha256) == (b"other", None)
    assert len(list((root / ".tmp").iterdir())) == 1
    put(store)  # the dead writer's lock is gone with it
    found = store.head(KEY)
    assert found is not None
    assert found.sha256 == hashlib.sha256(b"bytes").hexdigest()


def test_leftovers_of_a_crash_are_swept_when_old_and_never_listed(store: FilesystemStore, root: Path) -> None:
    (root / ".tmp").mkdir(parents=True)
    for name in ("old", "young"):
        (root / ".tmp" / name).write_bytes(b"half")
    two_hours_ago = time.time() - 7200
    os.utime(root / ".tmp/old", (two_hours_ago, two_hours_ago))
    assert list(store.list("")) == []
    put(store)
    assert [path.name for path in (root / ".tmp").iterdir()] == ["young"]


def test_a_key_below_an_object_is_refused_and_both_survive(store: FilesystemStore, root: Path) -> None:
    put(store, "a")
    with pytest.raises(StorageError):
        put(store, "a/b")
    put(store, "c/d")
    with pytest.raises(StorageError):
        put(store, "c")
    assert [info.key for info in store.list("")] == ["a", "c/d"]
    assert list((root / ".tmp").iterdir()) == []


def test_a_name_longer_than_the_disk_takes(store: FilesystemStore) -> None:
    with pytest.raises(StorageError):
        put(store, "x" * 300)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    put(store)

    def full(_file: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            put(store, "jobs/a/2.png")
        with pytest.raises(StorageUnavailable):
            store.check()
    assert [info.key for info in store.list("")] == [KEY]
    assert list((root / ".tmp").iterdir()) == []


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    program = """
import hashlib, subprocess, sys
from pathlib import Path
from dreamforge.storage.base import DiskFull
from dreamforge.storage.filesystem import FilesystemStore
root = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(root)], capture_output=True).returncode:
    sys.exit(77)
def put(key, data):
    digest = hashlib.sha256(data).hexdigest()
    FilesystemStore(root).put(key, data, content_type="image/png", sha256=digest)
put("small.png", b"x")
try:
    put("big.png", b"x" * 2_000_000)
except DiskFull:
    assert [info.key for info in FilesystemStore(root).list("")] == ["small.png"]
    put("small-2.png", b"x" * 500_000)
    sys.exit(0)
sys.exit("a full disk was not noticed")
"""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, str(tmp_path)]
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here, so no small disk can be mounted")
    if ended.returncode == 77 or ended.stderr.startswith("unshare:"):
        pytest.skip("this machine allows no private mount, so no small disk can be had")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_names_a_root_without_permission(store: FilesystemStore, root: Path) -> None:
    root.mkdir(mode=0o500)
    with pytest.raises(StorageUnavailable, match="Permission denied"):
        store.check()


def test_check_makes_a_missing_root(store: FilesystemStore, root: Path) -> None:
    store.check()
    assert list((root / ".tmp").iterdir()) == []


def test_a_store_without_a_key_signs_and_verifies_nothing(root: Path) -> None:
    store = FilesystemStore(root)
    with pytest.raises(ConfigurationError, match="DF_SIGNING_KEY"):
        store.sign_get(KEY, ttl_seconds=60, filename="1.png", content_type="image/png")
    with pytest.raises(ConfigurationError, match="DF_SIGNING_KEY"):
        store.verify_get(KEY, {})


def test_the_sidecar_is_readable_by_people(store: FilesystemStore, root: Path) -> None:
    put(store)
    side = json.loads((root / f".meta/{KEY}@.json").read_text())
    assert side["metadata"] == {"a": "b"}
    assert side["sha256"] == hashlib.sha256(b"bytes").hexdigest()
