"""Every family of denoisers: what control does to each layer, against the equations written out densely."""

import pytest
import torch

import tiny
from symskew.attach import control, disable, enable
from symskew.circulate import Circulation

FAMILIES = [tiny.unet_sd15, tiny.unet_sdxl, tiny.sd3, tiny.flux, tiny.pixart]
PIPELINES = [tiny.pipeline_sd15, tiny.pipeline_sdxl, tiny.pipeline_sd3, tiny.pipeline_flux, tiny.pipeline_pixart]


@pytest.fixture(params=FAMILIES, ids=lambda build: build.__name__)
def model(request):
    return request.param()


def test_identity_is_bit_identical_and_leaving_restores(model):
    vanilla = tiny.run(model)
    with control(model, Circulation()) as handle:
        assert torch.equal(tiny.run(model), vanilla)
    assert all(row.calls == 1 for row in handle.summary())
    with control(model, Circulation(1.3, 3)):
        assert not torch.equal(tiny.run(model), vanilla)
    assert torch.equal(tiny.run(model), vanilla)
    assert not any({"forward", "_diffusers_hook"} & vars(module).keys() for module in model.modules())


@pytest.mark.parametrize("build", PIPELINES, ids=lambda build: build.__name__)
def test_pipelines(build):
    pipe = build()
    vanilla = tiny.generate(pipe)
    handle = enable(pipe, Circulation(1.3, 3))
    assert not torch.equal(tiny.generate(pipe), vanilla)
    disable(pipe)
    assert torch.equal(tiny.generate(pipe), vanilla)
    assert all(row.calls == 3 for row in handle.summary())
