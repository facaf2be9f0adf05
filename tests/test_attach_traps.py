"""What else lives in a pipeline, and comes and goes around a control: adapters, caches, offloading, other kernels.

What stays as it is while a control acts is a case in tests/combinations, held to the equations.
"""

import diffusers.models.attention_processor as processors
import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from peft import LoraConfig

import tiny
from symskew import seam
from symskew.attach import SilentControlError, control
from symskew.circulate import Circulation
from symskew.diagnose import diagnose
from symskew.layers import find_layers
from symskew.seam import Tap
from symskew.session import Session

diffusers = tiny.diffusers
STRONG, EXACT = Circulation(1.3, 3), Circulation(1.3, 3, space="input")


def controlled(model, settings=STRONG, **inputs):
    with control(model, settings):
        return tiny.run(model, **inputs)


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)
    return True


@pytest.mark.parametrize("settings", [STRONG, EXACT], ids=["value", "input"])
@pytest.mark.parametrize("build", [tiny.unet_sdxl, tiny.sd3, tiny.flux], ids=lambda build: build.__name__)
def test_fused_projections(build, settings):
    # diffusers' own fused processor cannot do the dual attention of SD3.5, and leaves out its QK-norm.
    model = tiny.sd3(dual_attention_layers=(), qk_norm=None) if build is tiny.sd3 else build()
    vanilla, wanted = tiny.run(model), controlled(model, settings)
    with control(model, settings):
        model.fuse_qkv_projections()  # sets new processors, under our feet
        assert close(tiny.run(model), wanted)
    assert close(tiny.run(model), vanilla)
    with control(model, settings):
        assert close(tiny.run(model), wanted)
        model.unfuse_qkv_projections()
        assert close(tiny.run(model), wanted)
    assert torch.equal(tiny.run(model), vanilla)


@pytest.mark.parametrize("build", [tiny.unet_sd15, tiny.flux], ids=lambda build: build.__name__)
def test_lora(build):
    model = build()
    plain = tiny.run(model)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    torch.manual_seed(0)
    with control(model, STRONG):
        model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
        wanted = tiny.run(model)
    vanilla = tiny.run(model)
    assert not torch.allclose(vanilla, plain, atol=1e-3)
    assert not torch.allclose(vanilla, wanted, atol=1e-3)
    model.fuse_lora()
    model.unload_lora()
    assert close(controlled(model), wanted)
    assert close(tiny.run(model), vanilla)


def ip_adapter_weights(unet, width=6):
    """The state of an IP-Adapter of four image tokens, as its files hold it."""
    weights, key = {}, 1
    for name, _ in unet.attn_processors.items():
        if name.endswith("attn2.processor"):
            wide = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            weights |= {f"{key}.to_{part}_ip.weight": torch.randn(wide, tiny.TEXT) for part in "kv"}
            key += 2
    projection = torch.nn.ModuleDict(
        {"proj": torch.nn.Linear(width, 4 * tiny.TEXT), "norm": torch.nn.LayerNorm(tiny.TEXT)}
    )
    return {"image_proj": projection.state_dict(), "ip_adapter": weights}


@torch.no_grad()
def test_ip_adapter_of_a_unet():
    unet = tiny.unet_sd15()
    inputs = tiny.inputs(unet) | {"added_cond_kwargs": {"image_embeds": [torch.randn(2, 1, 6)]}}
    torch.manual_seed(0)
    with control(unet, STRONG) as handle:
        unet._load_ip_adapter_weights([ip_adapter_weights(unet)])  # sets new processors, under our feet
        inside = unet(**inputs)[0]
    vanilla = unet(**inputs)[0]
    assert not torch.allclose(inside, vanilla, atol=1e-3)
    with control(unet, STRONG) as again:
        assert torch.equal(unet(**inputs)[0], inside)
    assert [row.layer for row in again.summary() if row.calls] == [row.layer for row in handle.summary()]


class Count(Tap):
    rank = 1

    def __init__(self, layer):
        super().__init__(layer)
        self.shapes = []

    def attend(self, call, inner):
        self.shapes.append(tuple(call.q.shape))
        return inner()


@torch.no_grad()
@pytest.mark.parametrize("tokens", [4, 16, 21])  # as many as the image has, and as image and text have together
def test_ip_adapter_of_flux_with_as_many_tokens_as_the_image(tokens):
    model = tiny.flux()
    torch.manual_seed(0)
    for block in model.transformer_blocks:
        block.attn.set_processor(FluxIPAdapterAttnProcessor(32, 8, num_tokens=(tokens,), scale=0.5))
    inputs = tiny.inputs(model) | {"joint_attention_kwargs": {"ip_hidden_states": [torch.randn(2, tokens, 8)]}}
    vanilla = model(**inputs)[0]
    taps = [Count(layer) for layer in find_layers(model)]
    with Session(model, taps):
        assert torch.equal(model(**inputs)[0], vanilla)
    assert all(tap.shapes == [(2, 2, 21, 16)] for tap in taps)
    with control(model, EXACT):
        assert not torch.allclose(model(**inputs)[0], vanilla, atol=1e-3)
    assert torch.equal(model(**inputs)[0], vanilla)


@torch.no_grad()
def test_ip_adapter_of_sd3():
    model = tiny.sd3()
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if name.endswith(".attn"):
            module.set_processor(processors.SD3IPAdapterJointAttnProcessor2_0(16, 8, 8, timesteps_emb_dim=12))
    kwargs = {"ip_hidden_states": torch.randn(2, 4, 8), "temb": torch.randn(2, 12)}
    inputs = tiny.inputs(model) | {"joint_attention_kwargs": kwargs}
    vanilla = model(**inputs)[0]
    taps = [Count(layer) for layer in find_layers(model)]
    with Session(model, taps), control(model, EXACT):
        assert not torch.allclose(model(**inputs)[0], vanilla, atol=1e-3)
    assert [tap.shapes for tap in taps] == [[(2, 2, tokens, 8)] for tokens in (21, 16, 21, 21)]


def test_perturbed_attention_guidance():
    """PAG attends for two thirds of the batch and takes the values as they are for the rest."""
    pipe = tiny.pipeline_sdxl(kind=diffusers.StableDiffusionXLPAGPipeline)
    vanilla = tiny.generate(pipe, pag_scale=2.0, batch=2)
    taps = [Count(layer) for layer in find_layers(pipe.unet)]
    with control(pipe, STRONG) as handle, Session(pipe.unet, taps):
        strong = tiny.generate(pipe, pag_scale=2.0, batch=2)
    assert not torch.allclose(strong, vanilla, atol=1e-2)
    assert {row.calls for row in handle.summary()} == {3}
    assert [tap.shapes[0][0] for tap in taps] == [6] * 3 + [4] * 2 + [6] * 6
    with control(
        pipe, Circulation(torch.tensor([[1.3], [1.0]]), 3)
    ):  # one alpha for each image, in both kinds of layer
        mixed = tiny.generate(pipe, pag_scale=2.0, batch=2)
    assert close(mixed[0], strong[0], atol=1e-3)
    assert close(mixed[1], vanilla[1], atol=1e-3)
    message = r"attends over \(batch, tokens\) \(2, 16\) but was given \(3, 16\).*use Circulation\(space=.value"
    with pytest.raises(ValueError, match=message), control(pipe, EXACT):
        tiny.generate(pipe, pag_scale=2.0)
    assert torch.equal(tiny.generate(pipe, pag_scale=2.0, batch=2), vanilla)


def caches(pipe):
    now = {"current_timestep_callback": lambda: pipe.current_timestep}
    some = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (0, 900)}
    return {
        "pyramid": diffusers.PyramidAttentionBroadcastConfig(**some, **now),
        "faster": diffusers.FasterCacheConfig(tensor_format="BCHW", is_guidance_distilled=True, **some, **now),
        "first block": diffusers.FirstBlockCacheConfig(threshold=10.0),
    }


@pytest.mark.parametrize("name", ["pyramid", "faster", "first block"])
def test_caches_that_come_and_go_around_control(name):
    pipe = tiny.pipeline_flux()
    model = pipe.transformer
    vanilla = tiny.generate(pipe, steps=6)
    with control(pipe, STRONG):
        strong = tiny.generate(pipe, steps=6)
    model.enable_cache(caches(pipe)[name])
    cached = tiny.generate(pipe, steps=6)
    with control(pipe, STRONG) as handle:  # after the cache
        wanted = tiny.generate(pipe, steps=6)
    assert not any(torch.equal(*pair) for pair in [(cached, vanilla), (wanted, strong), (wanted, cached)])
    assert min(row.calls for row in handle.summary()) < 6
    assert torch.equal(tiny.generate(pipe, steps=6), cached)
    with control(pipe, STRONG):
        model.disable_cache()
        assert torch.equal(tiny.generate(pipe, steps=6), strong)
        model.enable_cache(caches(pipe)[name])  # before the cache, which stays when control leaves
        assert torch.equal(tiny.generate(pipe, steps=6), wanted)
    assert torch.equal(tiny.generate(pipe, steps=6), cached)
    with control(pipe, STRONG):
        assert torch.equal(tiny.generate(pipe, steps=6), wanted)
    model.disable_cache()
    assert torch.equal(tiny.generate(pipe, steps=6), vanilla)


def test_a_window_that_opens_on_a_cached_step():
    pipe = tiny.pipeline_flux()
    pipe.transformer.enable_cache(caches(pipe)["pyramid"])
    with control(pipe, STRONG, start=0.5) as handle:  # steps 3, 4 and 5, of which 4 is computed
        tiny.generate(pipe, steps=6)
    assert {row.calls for row in handle.summary()} == {1}
    with (
        pytest.raises(
            SilentControlError, match=r"(?s)5 of the 5 chosen layers.*\(PyramidAttentionBroadcastHook\) may have"
        ),
        control(pipe, STRONG, start=0.5, stop=0.6),
    ):
        tiny.generate(pipe, steps=6)


@pytest.mark.parametrize("settings", [STRONG, EXACT], ids=["value", "input"])
@pytest.mark.parametrize("build", [tiny.unet_sd15, tiny.flux], ids=lambda build: build.__name__)
def test_weights_that_are_elsewhere(build, settings):
    """Sequential offloading keeps weights on the meta device, within the attention too."""
    model = build()
    vanilla, wanted = tiny.run(model), controlled(model, settings)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.get_submodule(find_layers(model)[0].name).to_q.weight.is_meta
    with control(model, settings):
        assert torch.equal(tiny.run(model), wanted)
    with diagnose(model) as record:
        assert torch.equal(tiny.run(model), vanilla)
    assert len(record) == 2 * len(find_layers(model))


def test_offloading_that_comes_within_control():
    model = tiny.flux()
    vanilla, wanted = tiny.run(model), controlled(model)
    with control(model, STRONG):
        cpu_offload(model, execution_device=torch.device("cpu"))
        assert torch.equal(tiny.run(model), wanted)
    assert torch.equal(tiny.run(model), vanilla)
    assert torch.equal(controlled(model), wanted)


@pytest.mark.parametrize("build", [tiny.pipeline_sd15, tiny.pipeline_flux], ids=lambda build: build.__name__)
def test_model_offloading_re_wraps_the_denoiser_after_each_image(build):
    pipe = build()
    vanilla = tiny.generate(pipe)
    with control(pipe, STRONG):
        wanted = tiny.generate(pipe)
        pipe.enable_model_cpu_offload(device="cpu")
        for _ in range(2):
            assert torch.equal(tiny.generate(pipe), wanted)
    assert torch.equal(tiny.generate(pipe), vanilla)
    with control(pipe, STRONG, start=0.3) as handle:
        tiny.generate(pipe)
        tiny.generate(pipe)
    assert {row.calls for row in handle.summary()} == {4}


@pytest.mark.parametrize("settings", [STRONG, EXACT], ids=["value", "input"])
def test_weights_in_eight_bits(settings):
    model, rounded = tiny.flux(), tiny.flux()
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert model.transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn
    rounded.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    vanilla = tiny.run(model)
    assert torch.equal(controlled(model, settings), controlled(rounded, settings))
    assert torch.equal(tiny.run(model), vanilla)


def kernel(query, key, value, **_):
    """In the place of a fused kernel: attention that never calls torch's."""
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    return (F.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).transpose(1, 2)


@pytest.fixture(params=["flash", "sage", "_flash_3"])
def kernel_model(request, monkeypatch):
    registry, name = _AttentionBackendRegistry, request.param
    key = next(key for key in registry._backends if key.value == name)
    monkeypatch.setitem(registry._backends, key, kernel)
    monkeypatch.setitem(registry._constraints, key, [])
    model = tiny.flux()
    for layer in find_layers(model):
        model.get_submodule(layer.name).set_attention_backend(name)  # past the model's check that the package is there
    return model


def test_fused_kernels_are_seen_in_the_dispatchers_table(kernel_model):
    with control(kernel_model, STRONG) as handle:
        got = tiny.run(kernel_model)
    assert {row.backend for row in handle.summary()} <= {"flash", "sage", "_flash_3"}
    assert close(got, controlled(tiny.flux()))
    vanilla, plain = tiny.run(kernel_model), tiny.flux()
    with diagnose(kernel_model) as record:
        assert torch.equal(tiny.run(kernel_model), vanilla)
    with diagnose(plain) as wanted:
        tiny.run(plain)
    assert close(torch.tensor(record.to_pandas().symmetry), torch.tensor(wanted.to_pandas().symmetry))


def test_fused_kernels_without_that_table_are_an_error(kernel_model, monkeypatch):
    monkeypatch.setattr(seam, "_backends", lambda: None)
    message = r"5 of the 5 .* FluxAttnProcessor on backend \w+; model.set_attention_backend\(.native.\)"
    with pytest.raises(SilentControlError, match=f"(?s){message}"):
        controlled(kernel_model)


def test_linear_attention_is_an_error():
    class LinearAttnProcessor:
        def __call__(self, attn, hidden_states, **_):
            return attn.to_out[0](attn.to_v(hidden_states))

    model = tiny.pixart()
    model.transformer_blocks[0].attn1.set_processor(LinearAttnProcessor())
    with pytest.raises(SilentControlError, match="it has no softmax, hence nothing to control; leave these layers out"):
        controlled(model)


def ltx():
    return tiny.seeded(
        lambda: diffusers.LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
            num_layers=2, caption_channels=tiny.TEXT,
        )
    )  # fmt: skip


def wan():
    return tiny.seeded(
        lambda: diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=tiny.TEXT,
            freq_dim=8, ffn_dim=16, num_layers=2, rope_max_seq_len=32,
        )
    )  # fmt: skip


def cogvideox():
    return tiny.seeded(
        lambda: diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=4,
            text_embed_dim=tiny.TEXT, num_layers=2, sample_width=8, sample_height=8, sample_frames=9,
            max_text_seq_length=5,
        )
    )  # fmt: skip


def qwen():
    return tiny.seeded(
        lambda: diffusers.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=tiny.TEXT, axes_dims_rope=(8, 4, 4),
        )
    )  # fmt: skip


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


OTHERS = {
    # Its cross-attention does not say that it is: known by its calls, also with as many words as image tokens.
    "LTX": (ltx, 2, {
        "hidden_states": random(2, 16, 4), "encoder_hidden_states": random(2, 16, tiny.TEXT),
        "timestep": torch.full((2,), 500.0), "encoder_attention_mask": torch.ones(2, 16),
        "num_frames": 1, "height": 4, "width": 4,
    }),
    "Wan": (wan, 2, {
        "hidden_states": random(2, 4, 1, 8, 8), "encoder_hidden_states": random(2, 16, tiny.TEXT),
        "timestep": torch.full((2,), 500.0),
    }),
    # Joint attention by one set of projections: known by its calls too.
    "CogVideoX": (cogvideox, 2, {
        "hidden_states": random(2, 3, 4, 8, 8), "encoder_hidden_states": random(2, 5, tiny.TEXT),
        "timestep": torch.full((2,), 500),
    }),
    "Qwen": (qwen, 2, {
        "hidden_states": random(2, 16, 16), "encoder_hidden_states": random(2, 5, tiny.TEXT),
        "timestep": torch.full((2,), 0.5), "img_shapes": [[(1, 4, 4)]] * 2, "encoder_hidden_states_mask": None,
    }),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("settings", [STRONG, EXACT], ids=["value", "input"])
def test_other_families(name, settings):
    build, count, inputs = OTHERS[name]
    model = build()
    vanilla = model(**inputs, return_dict=False)[0]
    with control(model, settings) as handle:
        assert not torch.allclose(model(**inputs, return_dict=False)[0], vanilla, atol=1e-4)
    assert sum(row.calls for row in handle.summary()) == count
    assert torch.equal(model(**inputs, return_dict=False)[0], vanilla)


def test_any_module_with_attention_in_it():
    model = tiny.text_encoder()  # of transformers, causal, called by nobody's pipeline
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        vanilla = model(tokens).last_hidden_state
        with control(model, STRONG, layers="*layers.1.*") as handle:
            assert not torch.allclose(model(tokens).last_hidden_state, vanilla, atol=1e-3)
        assert torch.equal(model(tokens).last_hidden_state, vanilla)
    ((name, _, heads, _, length, calls, backend),) = handle.summary()
    assert (name.split(".")[-1], heads, length, calls, backend) == ("self_attn", 2, 10, 1, "sdpa")


def test_a_pipeline_that_is_none_of_diffusers():
    class Own:
        def __init__(self):
            self.transformer, self.vae = tiny.pixart(), tiny.vae()

    own = Own()
    vanilla = tiny.run(own.transformer)
    with control(own, STRONG):
        assert not torch.equal(tiny.run(own.transformer), vanilla)
