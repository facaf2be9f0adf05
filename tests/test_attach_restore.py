"""Leaving, whatever happened in between: what sequences found at random have shown to go wrong, each by its name."""

import functools
import itertools
import pickle
import signal
import threading
from contextlib import suppress
from typing import Any

import pytest
import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook

import tiny
from fuzz.interrupting import interrupted
from fuzz.shadow import structure, world
from symskew import Circulation, SilentControlError, control, diagnose, disable, enable
from symskew.uninterrupted import uninterrupted

STRONG = Circulation(1.3, 3)
LAYER = "transformer_blocks.1.attn1"


def controlled(model):
    with control(model, STRONG):
        return tiny.run(model)


class Twice(ModelHook):
    """Somebody else's hook, which runs the forward itself."""

    fn_ref: Any

    def new_forward(self, module, *args, **kwargs):
        return 2 * self.fn_ref.original_forward(*args, **kwargs)


def test_a_hook_that_came_later_stays_and_ours_below_it_goes():
    """diffusers would cut off the hook above along with the one that is removed."""
    model, other = tiny.pixart(), tiny.pixart()
    for one in (model, other):
        registry = HookRegistry.check_if_exists_or_initialize(one.get_submodule(LAYER))
        if one is model:
            with control(model, STRONG):
                registry = HookRegistry.check_if_exists_or_initialize(one.get_submodule(LAYER))
                registry.register_hook(Twice(), "twice")
                tiny.run(model)
        else:
            registry.register_hook(Twice(), "twice")
    assert structure(model) == structure(other)
    assert torch.equal(tiny.run(model), tiny.run(other))
    assert torch.equal(controlled(model), controlled(other))
    for one in (model, other):
        one.get_submodule(LAYER)._diffusers_hook.remove_hook("twice", recurse=False)
    assert structure(model) == structure(other)
    assert torch.equal(tiny.run(model), tiny.run(tiny.pixart()))


def test_a_forward_put_back_from_before_does_not_cut_the_control_out():
    """As accelerate does, whose hooks remember the forward they found."""
    model = tiny.pixart()
    vanilla, wanted = tiny.run(model), controlled(model)
    module = model.get_submodule(LAYER)
    before = module.forward
    module.forward = functools.wraps(before)(lambda *args, **kwargs: before(*args, **kwargs))
    with control(model, STRONG):
        assert torch.equal(tiny.run(model), wanted)
        module.forward = before
        assert torch.equal(tiny.run(model), wanted)
    assert torch.equal(tiny.run(model), vanilla)
    assert structure(model) == structure(tiny.pixart())


def test_asleep_below_a_wrapper_and_awake_again():
    model = tiny.pixart()
    vanilla, wanted = tiny.run(model), controlled(model)
    module = model.get_submodule(LAYER)
    with control(model, STRONG):
        before = module.forward
        module.forward = functools.wraps(before)(lambda *args, **kwargs: before(*args, **kwargs))
        tiny.run(model)
    assert torch.equal(tiny.run(model), vanilla)
    assert torch.equal(controlled(model), wanted)
    module.forward = before
    assert torch.equal(tiny.run(model), vanilla)
    assert torch.equal(controlled(model), wanted)
    assert structure(model) == structure(tiny.pixart())  # and with nobody above, it has gone


def strokes(begin, work):
    """Ctrl-C at one line after another of what symskew does in `work`, on what `begin` gives; yields where."""
    line, reached = 1, ["somewhere"]
    while reached:
        reached.clear()
        given = [begin()]
        # Whoever catches it lets go of the block, which then ends.
        with suppress(KeyboardInterrupt), interrupted(line, reached):
            work(given[0])
        given.clear()
        yield from reached
        line += 5


@pytest.mark.parametrize("kind", [lambda model: control(model, STRONG), diagnose], ids=["control", "diagnose"])
def test_ctrl_c_at_any_line_of_entering_and_leaving_restores(kind):
    model, before = tiny.pixart(num_layers=1), world()
    vanilla, plain = tiny.run(model), structure(model)

    def begun():
        block = kind(model)
        block.__enter__()
        tiny.run(model)
        return block

    entering = strokes(lambda: kind(model), lambda block: block.__enter__())
    leaving = strokes(begun, lambda block: block.__exit__(None, None, None))
    places = []
    for place in itertools.chain(entering, leaving):
        places.append(place)
        assert structure(model) == plain, place
        assert world() == before, place
    assert len(places) > 60
    assert torch.equal(tiny.run(model), vanilla)


@pytest.mark.parametrize("build", [tiny.pixart, tiny.flux], ids=lambda build: build.__name__)
def test_ctrl_c_at_any_line_of_a_forward_is_unknown_to_the_next(build):
    """The layer that was running must not be taken for running still."""
    model, other, before = build(num_layers=1), build(num_layers=1, seed=1), world()
    vanilla = tiny.run(other)
    with control(model, STRONG):
        wanted = tiny.run(model)
        for place in strokes(lambda: None, lambda _: tiny.run(model)):
            assert torch.equal(tiny.run(model), wanted), place
            assert torch.equal(tiny.run(other), vanilla), place
            assert world()[1] == before[1], place  # no function mode is left
    assert world() == before


@pytest.mark.parametrize("build", [tiny.pixart, tiny.flux], ids=lambda build: build.__name__)
def test_ctrl_c_at_any_line_of_a_forward_ends_with_the_block(build):
    model, before = build(num_layers=1), world()

    def begun():
        block = control(model, STRONG)
        block.__enter__()
        return block

    blocks = []
    for place in strokes(lambda: blocks.append(begun()), lambda _: tiny.run(model)):
        with suppress(SilentControlError):  # where it was stopped before it did anything
            blocks.pop().__exit__(None, None, None)
        assert world() == before, place


def test_ctrl_c_at_any_line_of_a_forward_leaves_a_record_that_can_be_read():
    model = tiny.pixart(num_layers=1)
    with diagnose(model) as record:
        tiny.run(model)
        rows = len(record)
        for place in strokes(lambda: None, lambda _: tiny.run(model)):
            before = len(record)
            tiny.run(model)
            assert len(record) == before + rows, place


def test_ctrl_c_while_enabling_leaves_nothing():
    model = tiny.pixart(num_layers=1)
    plain = structure(model)
    enabled = []
    for place in strokes(lambda: None, lambda _: enabled.append(enable(model, STRONG))):
        if enabled:  # it came after the last line
            tiny.run(model)
            disable(enabled.pop())
        assert structure(model) == plain, place
    tiny.run(model)
    disable(model)
    assert structure(model) == plain


@pytest.mark.usefixtures("heard")
def test_ctrl_c_waits_for_the_end_and_then_comes():
    done = []

    def work():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]
    thread = threading.Thread(target=lambda: done.append(uninterrupted().__enter__()))
    thread.start()
    thread.join()
    assert done[-1] is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_model_is_not_pickled_while_it_is_controlled():
    model = tiny.pixart()
    with control(model, STRONG):
        tiny.run(model)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(model)
    pickle.dumps(model)
