"""One branch of guidance controlled: the other is what the model makes it, bit for bit, however branches are run."""

import itertools
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

import tiny
from symskew import Circulation, Ramp, control, diagnose
from symskew.attach import SilentControlError
from symskew.branch import Share
from symskew.perturbation import Blur
from symskew.timeline import Timeline
from symskew.weak import weaken
from test_attach_ramp import Log, assert_acts

diffusers = tiny.diffusers
STRONG = Circulation(1.6, 3)
BRANCHES = ("unconditional", "conditional")


def only(branch, **changes):
    return Circulation(**{"alpha": 1.6, "beta": 3, **changes}, branch=branch)


def guided_flux():
    """FLUX runs its branches one by one, and names them."""
    pipe = tiny.pipeline_flux()
    negative = {
        "negative_prompt_embeds": tiny._noise(1, 5, tiny.TEXT, seed=7),
        "negative_pooled_prompt_embeds": tiny._noise(1, 12, seed=8),
    }
    return pipe, {"true_cfg_scale": 2.0, **negative}


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("build", [tiny.pipeline_sd3, tiny.pipeline_sd15], ids=lambda build: build.__name__)
def test_rows_of_the_branch_act_and_the_others_are_vanilla(build, branch):
    pipe = build()
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    log = Log(denoiser)
    with control(pipe, only(branch, adaptive="sample")) as handle:
        tiny.generate(pipe, batch=2)
    settings = {branch: Circulation(1.6, 3, adaptive="sample")}
    for seen, layer in itertools.product(log.forwards, handle.layers):
        for number, name in enumerate(BRANCHES):
            rows = slice(2 * number, 2 * number + 2)
            part = {layer.name: _rows(seen[layer.name], rows)}
            assert_acts(part, layer, settings.get(name, Circulation()))


def _rows(value, rows):
    return (
        tuple(_rows(part, rows) for part in value)
        if isinstance(value, tuple)
        else value
        if value is None
        else value[rows]
    )


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_other_branch_is_bit_identical(branch):
    pipe, log = tiny.pipeline_sd15(), []
    note = pipe.unet.register_forward_hook(lambda m, a, k, out: log.append((a, k, out[0])), with_kwargs=True)
    with control(pipe, only(branch)):
        tiny.generate(pipe, batch=2)
    note.remove()
    args, kwargs, out = log[0]
    with torch.no_grad():
        vanilla = pipe.unet(*args, **kwargs)[0]
    mine, other = (slice(2, 4), slice(0, 2)) if branch == "conditional" else (slice(0, 2), slice(2, 4))
    assert torch.equal(out[other], vanilla[other])
    assert not torch.equal(out[mine], vanilla[mine])


@pytest.mark.parametrize("branch", BRANCHES)
def test_passes_that_are_named(branch):
    pipe, arguments = guided_flux()
    vanilla = tiny.generate(pipe, **arguments)
    log = []
    pipe.transformer.register_forward_hook(lambda m, a, k, out: log.append((a, k, out[0])), with_kwargs=True)
    with control(pipe, only(branch)) as handle:
        assert not torch.equal(tiny.generate(pipe, **arguments), vanilla)
    assert {row.calls for row in handle.summary()} == {3}
    touched = [not torch.equal(pipe.transformer(*a, **k)[0], out) for a, k, out in log[:6]]
    assert touched == [name == branch for name in ("conditional", "unconditional")] * 3
    assert torch.equal(tiny.generate(pipe, **arguments), vanilla)
    assert not {"cache_context", "_symskew_listeners"} & vars(pipe.transformer).keys()


@pytest.mark.parametrize("order", [BRANCHES, BRANCHES[::-1]], ids="-".join)
def test_both_branches_together_are_all_rows(order):
    pipe = tiny.pipeline_sd15()
    with control(pipe, STRONG):
        wanted = tiny.generate(pipe)
    alone = []
    for branch in BRANCHES:
        with control(pipe, only(branch)) as handle:
            alone.append(tiny.generate(pipe))
        assert {row.calls for row in handle.summary()} == {3}
    assert not torch.equal(*alone)
    with control(pipe, only(order[0])) as outer, control(pipe, only(order[1])) as inner:
        both = tiny.generate(pipe)
    torch.testing.assert_close(both, wanted, atol=1e-5, rtol=1e-5)
    assert {row.calls for handle in (outer, inner) for row in handle.summary()} == {3}


@pytest.mark.parametrize("states", ["value", "input"])
def test_each_branch_has_settings_of_its_own(states):
    pipe = tiny.pipeline_sd15()
    ways = {"unconditional": only("unconditional", adaptive="sample"), "conditional": only("conditional", alpha=0.6)}
    log = Log(pipe.unet)
    with ExitStack() as stack:
        handles = [stack.enter_context(control(pipe, way)) for way in ways.values()]
        record = stack.enter_context(diagnose(pipe, states=states))
        tiny.generate(pipe, batch=2)
    for seen, layer in itertools.product(log.forwards, handles[0].layers):
        for number, branch in enumerate(BRANCHES):
            part = {layer.name: _rows(seen[layer.name], slice(2 * number, 2 * number + 2))}
            assert_acts(part, layer, replace(ways[branch], branch=None))
    # A record of the two is, branch by branch, the records of one control each.
    frame = record.to_pandas()
    for branch, way in ways.items():
        with control(pipe, replace(way, branch=None)), diagnose(pipe, states=states) as own:
            tiny.generate(pipe, batch=2)
        first = [
            some[(some.branch == branch) & (some.step == 0)].reset_index(drop=True) for some in (frame, own.to_pandas())
        ]
        first = [some[some.layer == handles[0].layers[0].name] for some in first]
        for measure in ("energy", "alignment", "alpha", "beta"):
            assert first[0][measure].to_numpy() == pytest.approx(first[1][measure].to_numpy(), rel=1e-3, abs=1e-5), (
                measure
            )


def test_the_one_entered_last_acts_where_it_acts():
    pipe = tiny.pipeline_sd15()
    with control(pipe, only("conditional")):
        wanted = tiny.generate(pipe)
    with control(pipe, STRONG), control(pipe, Circulation(branch="unconditional")):
        assert torch.equal(tiny.generate(pipe), wanted)


def test_a_callback_may_turn_guidance_off_on_the_way():
    pipe, acted = tiny.pipeline_sd15(), []

    def unguided(pipe, step, time, kwargs):
        if step == 0:
            pipe._guidance_scale = 0.0
            return {"prompt_embeds": kwargs["prompt_embeds"].chunk(2)[-1]}
        return {}

    extra = {"callback_on_step_end": unguided, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with control(pipe, only("unconditional")) as handle:
        tiny.generate(pipe, **extra)
        acted = {row.calls for row in handle.summary()}
        with pytest.raises(ValueError, match="was called without guidance"):
            tiny.generate(pipe, guidance_scale=1.0)
    assert acted == {1}


def test_the_record_says_whose_rows_acted():
    pipe = tiny.pipeline_sdxl()
    with control(pipe, only("conditional", alpha=Ramp(2, 1.5))), diagnose(pipe) as record:
        tiny.generate(pipe, batch=2)
    frame = record.to_pandas()
    found = frame[frame.retrieval == "controlled"].groupby(["branch", "step"], observed=True)[["alpha", "beta"]].mean()
    assert found.loc["conditional"].to_numpy() == pytest.approx(torch.tensor([[2, 3], [1.75, 3], [1.5, 3]]).numpy())
    assert (found.loc["unconditional"].to_numpy() == 1).all()
    both = frame.pivot_table("energy", ["step", "layer", "sample", "branch"], "retrieval", observed=True)
    rest = both.xs("unconditional", level="branch")
    assert rest.controlled.to_numpy() == pytest.approx(rest.vanilla.to_numpy(), rel=1e-5)
    assert not (
        both.xs("conditional", level="branch").controlled == both.xs("conditional", level="branch").vanilla
    ).any()


def test_without_guidance_all_is_conditional():
    pipe = tiny.pipeline_sd15()
    with control(pipe, STRONG):
        wanted = tiny.generate(pipe, guidance_scale=1.0)
    with control(pipe, only("conditional")):
        assert torch.equal(tiny.generate(pipe, guidance_scale=1.0), wanted)
    message = "branch='unconditional' has nothing to act on: StableDiffusionPipeline was called without guidance"
    with pytest.raises(ValueError, match=message), control(pipe, only("unconditional")):
        tiny.generate(pipe, guidance_scale=1.0)
    flux = tiny.pipeline_flux()
    with pytest.raises(SilentControlError, match="or no pass was of its branch"), control(flux, only("unconditional")):
        tiny.generate(flux)


@pytest.mark.parametrize(("branch", "alone"), [("conditional", 1), ("unconditional", 0)])
def test_per_sample_settings_are_those_of_the_images(branch, alone):
    pipe = tiny.pipeline_sd15()
    with control(pipe, only(branch, alpha=torch.tensor([[1.6], [1.0]]))):
        mixed = tiny.generate(pipe, batch=2)
    with control(pipe, only(branch)):
        strong = tiny.generate(pipe, batch=2)
    torch.testing.assert_close(mixed[0], strong[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], tiny.generate(pipe, batch=2)[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("branch", BRANCHES)
def test_pag_keeps_its_perturbed_branch(branch):
    pipe = tiny.pipeline_sdxl(kind=diffusers.StableDiffusionXLPAGPipeline)
    rows = []
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.register_forward_hook(
        lambda module, args, out: rows.append(out)
    )
    vanilla = tiny.generate(pipe, steps=1)
    with control(pipe, only(branch), layers="mid"):
        assert not torch.equal(tiny.generate(pipe, steps=1), vanilla)
    before, after = rows
    changed = [not torch.equal(before[row], after[row]) for row in range(3)]
    assert changed == [branch == "unconditional", branch == "conditional", False]


@pytest.mark.parametrize(("branch", "guidance"), [("conditional", 5.0), ("conditional", 1.0), ("unconditional", 5.0)])
def test_a_weak_pass_is_of_neither_branch(branch, guidance):
    """It is what it would be without the control, whichever was entered first: the formula, by hand."""
    pipe, log, scale = tiny.pipeline_sd15(), [], 2.0
    note = pipe.unet.register_forward_hook(lambda module, args, kwargs, _: log.append((args, kwargs)), with_kwargs=True)
    tiny.generate(pipe, steps=1, guidance_scale=guidance)
    note.remove()
    ((args, kwargs),) = log

    def predict(*blocks):
        """The prediction within blocks, its unconditional rows and its conditional one."""
        with ExitStack() as stack, torch.no_grad():
            for block in blocks:
                stack.enter_context(block())
            return pipe.unet(*args, **kwargs)[0].split([int(guidance > 1), 1])

    def weakened():
        return weaken(pipe, scale, Blur(), layers="down")

    def steered():
        return control(pipe, only(branch), layers="up")

    (_, c), (_, guided), (u, controlled) = predict(), predict(weakened), predict(steered)
    weak = c - guidance / scale * (guided - c)
    assert torch.equal(controlled, c) == (branch == "unconditional")
    for blocks in ((steered, weakened), (weakened, steered)):
        found = predict(*blocks)
        assert torch.equal(found[0], u)
        torch.testing.assert_close(found[1], controlled + scale / guidance * (controlled - weak))


def test_compiled_it_is_the_same():
    torch._dynamo.reset()
    pipe = tiny.pipeline_sd3()
    pipe.transformer = tiny.sd3(num_layers=1)
    with control(pipe, only("conditional", alpha=Ramp(2, 1.2))):
        wanted = tiny.generate(pipe)
        pipe.transformer.compile(backend="eager")
        torch.testing.assert_close(tiny.generate(pipe), wanted, atol=1e-3, rtol=1e-3)
    torch._dynamo.reset()


def test_targets_that_do_not_know_are_refused_before_anything_is_attached():
    model = tiny.pixart()
    message = "branch='conditional' cannot be told from the other: a bare PixArt.* give the whole pipeline"
    with pytest.raises(ValueError, match=message), control(model, only("conditional")):
        pass
    pipe = tiny.pipeline_pixart()
    if not hasattr(type(pipe.transformer), "cache_context"):
        message = "PixArtAlphaPipeline does not say whether it guides, nor names its passes; leave branch out"
        with pytest.raises(ValueError, match=message), control(pipe, only("conditional")):
            pass
    assert not any(hasattr(module, "_diffusers_hook") for module in pipe.transformer.modules())


def test_batches_that_are_not_stacked_are_refused():
    pipe = tiny.pipeline_sd15()
    pipe._guidance_scale = 5.0
    tiny.generate(pipe, steps=1)
    message = r"StableDiffusionPipeline guides, but the 2 row\(s\) of its denoiser's batch are no 2 copies"
    with pytest.raises(ValueError, match=message), control(pipe, only("conditional")):
        tiny.run(pipe.unet)  # two rows, each with latents of its own
    with pytest.raises(ValueError, match=r"guides, but the 3 row\(s\)"), control(pipe, only("conditional")):
        tiny.run(pipe.unet, batch=3)


def test_the_rows_of_an_attention():
    both = Share("conditional", BRANCHES, 4)
    assert both.of(4, 4) == slice(2, 4)
    assert both.of(8, 8) == slice(4, 8)  # frames of each image
    assert both.of(2, 2) == slice(0, 2)  # a cache that spares the unconditional rows
    assert Share("unconditional", BRANCHES, 4).of(2, 2) == slice(2, 2)
    pag = (*BRANCHES, "perturbed")
    assert [Share(branch, pag, 6).of(4, 6) for branch in pag[:2]] == [slice(0, 2), slice(2, 4)]
    assert [Share(branch, pag, 3).of(6, 9) for branch in pag[:2]] == [slice(0, 3), slice(3, 6)]  # of three frames
    assert Share("conditional", ("conditional", "perturbed"), 4).of(2, 4) == slice(0, 2)
    with pytest.raises(
        ValueError, match=r"whose rows are of the conditional branch cannot be told: 3 where .* given 4"
    ):
        both.of(3, 3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_several_may_listen_and_leave_in_any_order(order):
    """A control of one branch and a diagnosis hear the same names, and leave nothing behind."""
    root = tiny.flux()
    lines = [Timeline(object()) for _ in range(3)]
    stacks = [ExitStack() for _ in lines]
    for stack, line in zip(stacks, lines, strict=True):
        stack.enter_context(line.listening(root))
    left = set()
    for number in order:
        with root.cache_context("cond"):
            assert [line.context for line in lines] == [None if n in left else "cond" for n in range(3)]
        assert [line.context for line in lines] == [None] * 3
        stacks[number].close()
        left.add(number)
    assert not {"cache_context", "_symskew_listeners"} & vars(root).keys()


def test_a_pass_for_both_branches_is_not_taken_for_one():
    root, line = tiny.flux(), Timeline(object())
    with line.listening(root), root.cache_context("cond_uncond"):
        assert line.context is None
