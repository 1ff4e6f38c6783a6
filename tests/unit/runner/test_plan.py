"""Which plan a device gets, what settings change of it, and what an image's metadata say about it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge.errors import ConfigurationError
from dreamforge.presets import PRESETS
from dreamforge.settings import load
from dreamforge_runner.backends.sdxl import plan
from dreamforge_runner.backends.sdxl.plan import Bucket, Compile, Device, MemoryFormat, Number, Plan, Speed
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings

H100 = Device("NVIDIA H100 80GB HBM3", (9, 0))


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((0, 0), "cpu"),
        ((7, 5), "turing"),
        ((8, 0), "ampere"),
        ((8, 9), "ampere"),
        ((9, 0), "hopper"),
        ((10, 0), "hopper"),
    ],
)
def test_the_class_of_a_device_decides(capability: tuple[int, int], name: str):
    chosen = plan.choose(Device("a card", capability))
    assert (chosen.name, chosen.label) == (name, f"{name}@{chosen.version}")


def test_pictures_are_as_asked_for_unless_an_operator_says_otherwise():
    for one in plan.PLANS.values():
        assert (one.micro_batch, one.speed, one.speed.guided_share) == (1, Speed.NONE, 1.0)
        # float16 overflows in SDXL's VAE: it never decodes in it, and says what it decodes in.
        assert one.vae_dtype is not Number.FLOAT16


def test_the_sizes_of_the_presets_are_the_buckets():
    large = {(p.defaults.width, p.defaults.height) for p in PRESETS.values() if p.gpu_memory_gib >= 12}
    assert large == set(plan.SDXL_BUCKETS)


def test_what_a_setting_changes_is_told_and_nothing_else():
    settings = load(PlanSettings, sdxl_micro_batch=4, sdxl_compile="full", sdxl_vae_dtype="bfloat16")
    chosen = settings.choose(H100)
    assert (chosen.micro_batch, chosen.compile, chosen.dtype) == (4, Compile.FULL, Number.BFLOAT16)
    assert chosen.label == "hopper@1 compile=full micro_batch=4"
    assert chosen.differs == {"micro_batch": 4, "compile": Compile.FULL}


def test_a_plan_can_be_asked_for_by_name():
    assert load(PlanSettings, sdxl_plan="turing").choose(H100).label == "turing@1"


def test_only_buckets_are_compiled():
    chosen = dataclasses.replace(plan.choose(H100), buckets=(Bucket(512, 768),))
    assert chosen.compiles(512, 768)
    assert not chosen.compiles(768, 512)
    assert not dataclasses.replace(chosen, compile=Compile.OFF).compiles(512, 768)


@pytest.mark.parametrize(
    ("given_", "meant"), [("1", "regional"), ("0", "off"), ("true", "regional"), ("full", "full")]
)
def test_the_old_switch_still_means_what_it_meant(given_: str, meant: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DF_SDXL_COMPILE", given_)
    assert load(PlanSettings).sdxl_compile == meant


def test_buckets_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DF_SDXL_BUCKETS", "1024x1024, 512x768")
    assert load(PlanSettings).choose(H100).buckets == (Bucket(1024, 1024), Bucket(512, 768))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DF_SDXL_BUCKETS", "1024"),
        ("DF_SDXL_BUCKETS", "1023x1024"),
        ("DF_SDXL_BUCKETS", "4096x1024"),
        ("DF_SDXL_PLAN", "pascal"),
        ("DF_SDXL_MICRO_BATCH", "0"),
        ("DF_SDXL_COMPILE", "always"),
        ("DF_SDXL_SPEED", "fast"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        load(PlanSettings)


plans = st.builds(
    Plan,
    st.sampled_from(sorted(plan.PLANS)),
    st.just(1),
    dtype=st.sampled_from(Number),
    memory_format=st.sampled_from(MemoryFormat),
    compile=st.sampled_from(Compile),
    micro_batch=st.integers(1, 16),
    speed=st.sampled_from(Speed),
)


@given(plans, plans)
def test_plans_of_one_label_are_equal(one: Plan, other: Plan):
    assert (one.label == other.label) == (one == other)
    assert (one.facts() == other.facts()) == (one == other)
