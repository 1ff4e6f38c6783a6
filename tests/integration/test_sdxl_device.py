"""What the SDXL backend renders on where CUDA does not start: a GPU that is there is not passed over in silence."""

import pytest

from dreamforge.errors import ErrorCode, JobError
from dreamforge_runner.backends.sdxl.libraries import prepare_environment
from tests import tiny_sdxl
from tests.integration.sdxl_kit import made

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
]


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A driver that CUDA does not start with, and one GPU that NVML knows."""
    prepare_environment()
    import torch  # noqa: PLC0415 - reads that environment

    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 0, raising=False)
    monkeypatch.setattr(torch.cuda, "_initialized", False)
    monkeypatch.setattr(torch.cuda, "_cached_device_count", None)
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_a_gpu_that_cuda_can_not_start_is_a_fault_and_no_slow_picture(no_cuda: pytest.MonkeyPatch):
    with pytest.raises(JobError, match="is its driver too old") as caught:
        made()
    assert caught.value.code is ErrorCode.GPU_FAULT
    with pytest.raises(JobError, match="DF_SDXL_PLAN=cpu"):
        made(sdxl_plan="hopper")
    assert made(sdxl_plan="cpu")._engine.plan.name == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_none(hidden: str, no_cuda: pytest.MonkeyPatch):
    no_cuda.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert made()._engine.plan.name == "cpu"


def test_where_nvml_knows_no_gpu_the_cpu_renders(no_cuda: pytest.MonkeyPatch):
    import torch  # noqa: PLC0415 - only where it is installed

    for count in (0, -1):  # -1: there is no driver
        no_cuda.setattr(torch.cuda, "_raw_device_count_nvml", lambda count=count: count)
        assert made()._engine.plan.name == "cpu"
