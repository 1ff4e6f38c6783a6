"""torch.compile on the CPU, with the tiny checkpoint: the same pictures, cancel, swap, and kernels kept on disk.

Compiling takes a C++ compiler and tens of seconds on a busy machine, so one compiled backend serves the module.
"""

import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamforge.errors import FACTS, ErrorCode
from dreamforge.spec import Limits
from dreamforge_runner.backends.base import Item, RenderCanceled
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.compile_cache import CompileCache
from dreamforge_runner.backends.sdxl.plan import Attention
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
from tests import tiny_sdxl
from tests.golden import renders
from tests.integration.runner_kit import Runner, make_spec
from tests.integration.sdxl_kit import SAME_PICTURE_DB, alone, decibels, made, params

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU: no g++"),
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of itself, differently in each release
]
KERNELS = tiny_sdxl.CACHE.parent / "inductor"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project's folder of kernels; torch's own is kept between runs, or each would wait for g++ again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(KERNELS))
        yield tmp_path_factory.mktemp("kernels") / "compiled"


@pytest.fixture(scope="module")
def compiled(folder: Path) -> SdxlBackend:
    backend = SdxlBackend(SdxlSettings(hash_cache_path=None), settings(folder))
    import torch  # noqa: PLC0415 - after the backend set the libraries' environment
    from torch._inductor import config  # noqa: PLC0415

    torch.set_num_threads(1)  # as the other fixture does: kernels are made for a number of threads
    config.cpp.vec_isa_ok = True  # else it compiles programs to find out what the processor can do
    backend.load(renders.model(tiny_sdxl.cached()))
    assert backend.warm_up() == []
    return backend


@pytest.fixture(scope="module")
def plain() -> SdxlBackend:
    return made()


def settings(folder: Path, sizes: str = "256x256") -> PlanSettings:
    return PlanSettings.model_validate(
        {"sdxl_compile": "regional", "sdxl_buckets": sizes, "sdxl_compile_cache_path": folder}
    )


def forget() -> None:
    """What a new process on a bare machine knows of kernels, in memory and in torch's own folder: nothing."""
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache  # noqa: PLC0415 - only with torch
    from torch._inductor.codecache import FxGraphCache  # noqa: PLC0415
    from torch.compiler._cache import CacheArtifactManager  # noqa: PLC0415

    AOTAutogradCache.clear()
    FxGraphCache.clear()
    CacheArtifactManager.clear()


def compilations() -> int:
    from dreamforge_runner.backends.sdxl.engine import compiling  # noqa: PLC0415 - imports torch

    return compiling.compilations()


def test_compiled_pictures_are_the_eager_ones(compiled: SdxlBackend, plain: SdxlBackend):
    before = compilations()
    asked: list[dict[str, Any]] = [{}, {"guidance": 0.0}, {"guidance_cutoff": 0.5}]
    for seed, changes in enumerate(asked):
        picture = alone(compiled, seed, **changes)
        assert decibels(picture, alone(plain, seed, **changes)) > SAME_PICTURE_DB
        assert picture.plan is not None
        assert "compile=regional" in picture.plan
    assert compilations() == before  # warming up was enough


def test_golden_holds_compiled(compiled: SdxlBackend):
    pixels = renders.render(compiled, renders.params("euler"))
    assert renders.difference(renders.thumbnail(pixels), renders.committed("euler")) < renders.TOLERANCE
    assert pixels.plan is not None
    assert "compile=regional" in pixels.plan


def test_another_size_runs_eagerly_and_says_so(compiled: SdxlBackend, plain: SdxlBackend):
    before = compilations()
    picture = alone(compiled, 1, width=320)
    assert picture.rgb == alone(plain, 1, width=320).rgb
    assert picture.plan is not None
    assert "compile" not in picture.plan
    assert compilations() == before


def test_a_cancel_stops_compiled_steps_too(compiled: SdxlBackend, plain: SdxlBackend):
    steps: list[int] = []

    def on_step(done: int) -> bool:
        steps.append(done)
        return done < 2

    compiled.begin(params(steps=4))
    with pytest.raises(RenderCanceled):
        compiled.denoise(Item(0, 1), on_step)
    compiled.end()
    assert steps == [1, 2]
    assert decibels(alone(compiled, 1), alone(plain, 1)) > SAME_PICTURE_DB


def test_kept_kernels_spare_the_next_load_the_compiler(compiled: SdxlBackend, folder: Path):
    before = compilations()
    forget()
    compiled.load(renders.model(tiny_sdxl.cached()))
    alone(compiled, 1)
    assert compilations() == before
    (kept,) = folder.iterdir()
    aside = kept.rename(folder.parent / "aside")
    forget()
    compiled.load(renders.model(tiny_sdxl.cached()))
    alone(compiled, 1)
    assert compilations() > before, "without the file there is something to compile"
    aside.replace(kept)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("processes", [1, 2])
def test_kernels_of_one_size_stay_when_those_of_another_are_kept(processes: int, tmp_path: Path):
    """One runner after another, or one that is given both sizes: what either compiled is there for the next."""

    def started() -> SdxlBackend:
        forget()
        backend = SdxlBackend(SdxlSettings(hash_cache_path=None), settings(tmp_path / "kernels", "256x256,320x256"))
        backend.load(renders.model(tiny_sdxl.cached()))
        return backend

    backend = started()
    for width in (256, 320):
        before = compilations()
        alone(backend, 1, width=width, guidance=0.0, steps=1)
        assert compilations() > before
        backend = started() if processes == 2 else backend
    before, backend = compilations(), started()
    for width in (256, 320):
        alone(backend, 1, width=width, guidance=0.0, steps=1)
    assert compilations() == before


@pytest.mark.usefixtures("compiled")
def test_kernels_of_one_attention_are_not_those_of_another(tmp_path: Path):
    """Not kept in a file of ours even: torch's own cache of this machine keeps them apart."""
    before = compilations()
    for attention in (Attention.MATH, Attention.EFFICIENT):
        given = settings(tmp_path / attention.value).model_copy(update={"sdxl_attention": attention})
        backend = SdxlBackend(SdxlSettings(hash_cache_path=None), given)
        backend.load(renders.model(tiny_sdxl.cached()))
        alone(backend, 1, guidance=0.0, steps=1)
        assert compilations() > before
        before = compilations()


def test_kernels_that_torch_can_not_read_are_told_and_replaced(folder: Path, tmp_path: Path):
    from dreamforge_runner.backends.sdxl.engine import compiling  # noqa: PLC0415 - imports torch

    cache = CompileCache(tmp_path / "kernels", {})
    cache.add(b"of another torch")
    found, (notice,) = compiling.restore(cache)
    assert (found, notice.code) == (False, "compile.cache_ignored")
    assert "torch can't read it" in notice.message
    cache.add(b"new")
    assert cache.read() == [b"new"]


def test_kernels_are_kept_and_damaged_ones_ignored(compiled: SdxlBackend, folder: Path, plain: SdxlBackend):
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    compiled.load(renders.model(tiny_sdxl.cached()))
    (notice,) = compiled.begin(params())
    assert (notice.code, notice.level) == ("compile.cache_ignored", "warning")
    assert "it is damaged" in notice.message
    compiled.end()
    assert decibels(alone(compiled, 1), alone(plain, 1)) > SAME_PICTURE_DB


def test_a_swapped_model_is_gone_with_its_kernels(compiled: SdxlBackend):
    old = weakref.ref(compiled._engine._pipe.unet)
    compiled.load(renders.model(tiny_sdxl.cached()))
    assert old() is None


def test_the_whole_unet_and_the_decoder_are_one_graph_each(plain: SdxlBackend):
    """What ``full`` compiles, traced and not translated: that would take g++ minutes here."""
    from torch._dynamo.utils import counters  # noqa: PLC0415 - only where torch is installed

    traced = made()
    pipe = traced._engine._pipe
    for part in (pipe.unet, pipe.vae.decoder):
        part.compile(fullgraph=True, dynamic=False, backend="eager")
    before = counters["stats"]["unique_graphs"]
    assert alone(traced, 1).rgb == alone(plain, 1).rgb
    assert counters["stats"]["unique_graphs"] - before == 2


def test_a_failing_compiler_costs_no_picture(
    folder: Path, plain: SdxlBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import torch  # noqa: PLC0415 - only where it is installed

    def broken(*_: object) -> object:
        raise RuntimeError("no compiler")

    backend = SdxlBackend(SdxlSettings(hash_cache_path=None), settings(tmp_path))
    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", broken)
    backend.load(renders.model(tiny_sdxl.cached()))
    (notice,) = backend.warm_up()
    assert notice.code == "compile.failed"
    picture = alone(backend, 1)
    assert picture.rgb == alone(plain, 1).rgb
    assert picture.plan is not None
    assert "compile" not in picture.plan


def test_a_timeout_while_compiling_is_an_item_timeout(tmp_path: Path):
    """torch holds the child's thread for long; the supervisor ends it all the same."""
    model = renders.model(tiny_sdxl.cached()).model_copy(update={"kind": "sdxl-checkpoint"})
    spec = make_spec("a red fox", limits=Limits(item_timeout_seconds=0.5, grace_seconds=1))
    (tmp_path / "spec.json").write_text(spec.model_copy(update={"model": model}).model_dump_json())
    settings = {
        "DF_SDXL_COMPILE": "regional",
        "DF_SDXL_BUCKETS": "256x256",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cold"),
        "OMP_NUM_THREADS": "1",
    }
    with Runner(tmp_path, "once", "spec.json", **settings) as runner:
        code, said = runner.finish(150)
    assert code == FACTS[ErrorCode.ITEM_TIMEOUT].exit_code
    assert "was still denoising after 0.5 s" in said
