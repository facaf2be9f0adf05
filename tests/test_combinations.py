"""What symskew is combined with: every line of docs/combinations.md is true, and every case has its line."""

import ast
from pathlib import Path

import pytest
import torch

import tiny
from combinations.case import UNTESTED
from combinations.cases import CASES
from combinations.guidance import modular, modular_images
from combinations.packages import deep_cache, merged
from combinations.page import PAGE, lines
from combinations.schedulers import DIFFUSION, FLOW, OTHERS, sampled
from combinations.truth import STRONG, check
from combinations.videos import MADE
from symskew import Circulation, SilentControlError, control, diagnose

diffusers = tiny.diffusers
# Of other libraries about themselves.
THEIRS = (
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:Already found a `peft_config`:UserWarning",
    "ignore:.*quantizer is deprecated:FutureWarning",
    "ignore:`QuantoConfig` is deprecated:FutureWarning",
    "ignore:Initializing zero-element tensors:UserWarning",
    "ignore:`FluxPosEmbed` is deprecated:FutureWarning",
    "ignore:Should have t:UserWarning",
    "ignore:__array_wrap__ must accept context:DeprecationWarning",
    "ignore:flex_attention called without torch.compile:UserWarning",
    "ignore:torch.meshgrid:UserWarning",
)
RUN = [case for case in CASES if case.build is not None]


@pytest.mark.filterwarnings(*THEIRS)
@pytest.mark.parametrize("case", RUN, ids=lambda case: f"{case.part}: {case.name}")
def test_control_and_diagnosis_are_those_of_the_equations(case):
    assert case.build is not None
    live = case.build()
    try:
        check(live, case)
    finally:
        live.done()


@pytest.mark.filterwarnings(*THEIRS)
@pytest.mark.parametrize("name", sorted({*DIFFUSION, *FLOW, *MADE}))
def test_a_window_of_every_kind_of_schedule(name):
    """A forward is within by the first place of its timestep in the scheduler's list."""
    live = sampled(name)
    with control(live.pipe, STRONG, start=0.4, stop=0.8) as handle:
        live.run()
    times = live.pipe.scheduler.timesteps.tolist()
    within = sum(0.4 <= times.index(time) / len(times) < 0.8 for time in times)
    assert {row.calls for row in handle.summary()} == {within * len(live.passes) * live.generations}


def test_a_window_that_begins_where_layers_are_spared():
    live = deep_cache()
    with (
        pytest.raises(SilentControlError, match=r"(?s)3 of the 4 .* mid_block.*it was not run: something spared it"),
        control(live.pipe, STRONG, start=0.25),
    ):
        live.run()


def test_a_map_of_merged_tokens_is_an_error():
    live = merged()
    with pytest.raises(ValueError, match="32 image tokens are none of the grids 8×8"), diagnose(live.pipe, maps=True):
        live.run()


def test_every_scheduler_is_there():
    exported = {name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    assert exported == {*DIFFUSION, *FLOW, *OTHERS, *MADE}


@pytest.mark.parametrize("name", OTHERS)
def test_a_scheduler_of_other_pipelines_is_none_of_these(name):
    for kind in (DIFFUSION[0], FLOW[0]):
        pipe = sampled(kind).pipe
        with pytest.raises((TypeError, ValueError, AttributeError, KeyError, RuntimeError)):  # noqa: PT012
            pipe.scheduler = getattr(diffusers, name)()
            tiny.generate(pipe)


def test_the_perturbed_attention_of_a_guider_stays_perturbed():
    """A guider of diffusers skips scores by a hook above ours; its pipeline gives the same under the same control."""
    skipped = {"indices": [0, 1], "fqn": "mid_block.attentions.0.transformer_blocks"}
    config = diffusers.LayerSkipConfig(**skipped, skip_attention=False, skip_attention_scores=True, skip_ff=False)
    guider = diffusers.PerturbedAttentionGuidance(
        5.0, 2.0, perturbed_guidance_start=-0.5, perturbed_guidance_stop=1.0, perturbed_guidance_config=config
    )
    pipe, plain = modular(guider), tiny.pipeline_sdxl(kind=diffusers.StableDiffusionXLPAGPipeline)
    for settings in (Circulation(), STRONG):
        with control(pipe, settings) as handle:
            ours = modular_images(pipe)
        with control(plain, settings):
            theirs = tiny.generate(plain, steps=2, guidance_scale=5.0, pag_scale=2.0)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    calls = {row.layer: row.calls for row in handle.summary()}
    assert {calls[name] for name in calls if name.startswith("mid")} == {4}
    assert {calls[name] for name in calls if not name.startswith("mid")} == {6}
    with diagnose(pipe) as record:
        modular_images(pipe)
    table = record.to_pandas()
    assert set(table[table.stage == "mid"].branch) == {"conditional", "unconditional"}
    assert set(table[table.stage != "mid"].branch) == {"conditional", "unconditional", "perturbed"}


def test_the_page_is_made_of_the_cases():
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("<!-- combinations: begin -->\n\n")[2].partition("\n<!-- combinations: end -->")[0]
    assert table.split("\n") == lines(), "run `python tests/combinations`"


def test_what_other_tests_prove_is_there():
    here = Path(__file__).parent
    for case in CASES:
        assert case.build is None or not case.by
        tested = {case.control, case.diagnosis} - {UNTESTED, "–"}
        assert bool(tested) == bool(case.build or case.by), case.name
        for name in case.by:
            file, _, function = name.partition("::")
            tree = ast.parse((here / f"{file}.py").read_text(encoding="utf-8"))
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
    assert len({(case.part, case.name) for case in CASES}) == len(CASES)
