"""What symskew is combined with: every line of docs/combinations.md is true, and every case has its line."""

import pytest
import torch

import tiny
from combinations.cases import CASES
from combinations.guidance import modular, modular_images
from combinations.truth import STRONG, check
from symskew import Circulation, control, diagnose

diffusers = tiny.diffusers
RUN = [case for case in CASES if case.build is not None]


@pytest.mark.parametrize("case", RUN, ids=lambda case: f"{case.part}: {case.name}")
def test_control_and_diagnosis_are_those_of_the_equations(case):
    live = case.build()
    try:
        check(live, case)
    finally:
        live.done()


def test_the_perturbed_attention_of_a_guider_stays_perturbed():
    """A guider of diffusers skips scores by a hook above ours; its own pipeline gives the same under the same control."""
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
