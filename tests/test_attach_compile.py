"""Control of compiled denoisers: one graph whatever the numbers, the same images as without compiling.

`aot_eager` traces as the default backend does and leaves the kernels as they are. On the CPU the retrievals of compiled
code are the fused ones, where eager code goes block by block: the two agree to rounding.
"""

import threading

import pytest
import torch
import torch._dynamo.utils as dynamo
import torch._inductor.config as inductor

import tiny
from combinations.truth import replaced
from symskew.attach import control
from symskew.circulate import Circulation
from symskew.diagnose import diagnose

STRONG = Circulation(1.3, 3)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    dynamo.counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return dynamo.counters["stats"]["unique_graphs"]


def eager(model, settings, **how):
    with control(model, settings, **how):
        return tiny.run(model)


def diagnosed(model, wanted, **inputs):
    """The record of one forward, which gives what it gives anyway."""
    with diagnose(model) as record:
        assert torch.equal(tiny.run(model, **inputs), wanted)
    return record.scores()


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny.unet_sd15(block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",),
                               up_block_types=("CrossAttnUpBlock2D",)),
        lambda: tiny.sd3(num_layers=1),
        lambda: tiny.flux(num_layers=1, num_single_layers=1),
        lambda: tiny.pixart(num_layers=1),
    ],
    ids=["unet", "sd3", "flux", "pixart"],
)  # fmt: skip
def test_one_full_graph_for_all_numbers(build):
    model = build()
    vanilla = tiny.run(model)
    measured = diagnosed(model, vanilla)
    values = [Circulation(1.3, 3), Circulation(0.7, 2.5)]
    wanted = [eager(model, settings) for settings in values]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(tiny.run(compiled), vanilla)
    assert graphs() == 1
    for settings, want in zip(values, wanted, strict=True):
        with control(compiled, settings) as handle:
            close(tiny.run(compiled), want)
            close(tiny.run(compiled), want)
        assert {row.calls for row in handle.summary()} == {2}
        assert graphs() == 2
    assert torch.equal(tiny.run(compiled), vanilla)
    assert graphs() == 2
    for _ in range(2):
        close(diagnosed(compiled, vanilla), measured)
        assert graphs() == 3


SETTINGS = {
    "adaptive": Circulation(1.3, 3, adaptive="sample"),
    "input": Circulation(1.3, 3, space="input"),
    "per sample": Circulation(torch.tensor([[1.3], [0.8]]), 3),
    "sym only": Circulation.sym_only(),
    "identity": Circulation(),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_kind_of_setting_makes_a_full_graph(settings):
    model = tiny.pixart(num_layers=1)
    wanted = eager(model, settings)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with control(compiled, settings) as handle:
        close(tiny.run(compiled), wanted)
    assert {row.calls for row in handle.summary()} == {1}


def test_tensors_of_new_numbers_are_no_new_graph():
    model = tiny.pixart(num_layers=1)
    values = [
        Circulation(torch.tensor(1.3), 3),
        Circulation(torch.tensor(0.7), torch.tensor(2.0)),
        Circulation(1.1, torch.tensor(4.0)),
    ]
    wanted = [eager(model, settings) for settings in values]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for settings, want in zip(values, wanted, strict=True):
        with control(compiled, settings):
            close(tiny.run(compiled), want)
    assert graphs() == 1


def test_blocks_compiled_one_by_one_share_their_graphs():
    model = tiny.flux(num_layers=1, num_single_layers=9)  # more than the compiler's limit of eight for one code
    vanilla, wanted = tiny.run(model), eager(model, STRONG)
    measured = diagnosed(model, vanilla)
    some = eager(model, STRONG, layers="0.3-0.6")
    model.compile_repeated_blocks(backend="aot_eager", fullgraph=True)
    assert torch.equal(tiny.run(model), vanilla)
    before = graphs()
    with control(model, STRONG):
        close(tiny.run(model), wanted)
    with control(model, Circulation(1.2, 2)):
        tiny.run(model)
    assert graphs() <= before + 3
    with control(model, STRONG, layers="0.3-0.6"):
        close(tiny.run(model), some)
    assert torch.equal(tiny.run(model), vanilla)
    before = graphs()
    close(diagnosed(model, vanilla), measured)
    assert graphs() <= before + 3


def test_a_window_on_a_compiled_pipeline():
    pipe = tiny.pipeline_pixart()
    with control(pipe, STRONG, start=0.25, stop=0.75):
        wanted = tiny.generate(pipe, steps=4)
    pipe.transformer = torch.compile(pipe.transformer, backend="aot_eager", fullgraph=True)
    with control(pipe, STRONG, start=0.25, stop=0.75) as handle:
        got = tiny.generate(pipe, steps=4)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert {row.calls for row in handle.summary()} == {2}
    assert graphs() == 2


def test_sizes_that_change():
    model, sizes = tiny.pixart(num_layers=1), (8, 12)
    vanilla = [tiny.run(model, size=size) for size in sizes]
    measured = [diagnosed(model, plain, size=size) for size, plain in zip(sizes, vanilla, strict=True)]
    with control(model, STRONG):
        wanted = [tiny.run(model, size=size) for size in sizes]
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    with control(compiled, STRONG) as handle:
        for size, want in zip(sizes, wanted, strict=True):
            close(tiny.run(compiled, size=size), want)
            assert {row.tokens for row in handle.summary()} == {size**2 // 4}
    for size, plain, want in zip(sizes, vanilla, measured, strict=True):
        close(diagnosed(compiled, plain, size=size), want)


def test_compiled_before_anything_ran_in_the_thread():
    model = tiny.pixart(num_layers=1)
    wanted, got = eager(model, STRONG), []

    def work():
        with control(model, STRONG):
            got.append(tiny.run(torch.compile(model, backend="aot_eager", fullgraph=True)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    close(got[0], wanted)


def test_compiled_in_place_and_within_control():
    model = tiny.flux(num_layers=1, num_single_layers=1)
    vanilla, wanted = tiny.run(model), eager(model, STRONG)
    measured = diagnosed(model, vanilla)
    with control(model, STRONG):
        model.compile(backend="aot_eager")
        close(tiny.run(model), wanted)
    close(tiny.run(model), vanilla)
    with control(model, STRONG):
        close(tiny.run(model), wanted)
    close(diagnosed(model, vanilla), measured)


def test_compiled_within_a_diagnosis():
    model = tiny.pixart(num_layers=1)
    vanilla = tiny.run(model)
    measured = diagnosed(model, vanilla)
    with diagnose(model) as record:
        model.compile(backend="aot_eager")
        assert torch.equal(tiny.run(model), vanilla)
    close(record.scores(), measured)


def test_kernels_of_the_inductor(monkeypatch, tmp_path):
    """An attention made into C++ whole, with a control and a diagnosis in it, gives the paper's equations."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = tiny.pixart(num_layers=1)
    vanilla = tiny.run(model)
    with replaced(model, r".*\.attn1", STRONG) as seen:
        wanted = tiny.run(model)
    attention = model.transformer_blocks[0].attn1
    attention.compile(fullgraph=True)
    one = inductor.patch(compile_threads=1)  # no pool of processes for a few kernels
    with one, control(model, STRONG) as handle, diagnose(model) as record:
        close(tiny.run(model), wanted)
    assert [row.calls for row in handle.summary()] == [1]
    table = record.to_pandas()
    for retrieval in ("vanilla", "controlled"):
        got = torch.tensor(table[table.retrieval == retrieval].symmetry.to_numpy()).double()
        torch.testing.assert_close(got, seen[0].symmetry, atol=1e-6, rtol=1e-5)
    attention._compiled_call_impl = None
    assert torch.equal(tiny.run(model), vanilla)


def test_a_backend_that_runs_the_graph_under_the_mode_does_not_act_twice():
    model = tiny.flux(num_layers=1, num_single_layers=1)
    wanted = eager(model, STRONG)
    compiled = torch.compile(model, backend="eager")
    with control(compiled, STRONG):
        close(tiny.run(compiled), wanted)


def test_values_that_are_not_finite_are_found():
    model = tiny.pixart(num_layers=2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        model.transformer_blocks[1].attn1.to_v.bias[0] = float("inf")
    message = r"first at transformer_blocks.1.attn1 \(1 of 2 layers\)"
    with pytest.raises(FloatingPointError, match=message), control(compiled, STRONG):
        tiny.run(compiled)
