"""A state machine that does to a model whatever may be done to it, in any order, and holds it to its shadow.

After every step the output equals the dense equations for what is in force, or the error that has to come comes; what
a diagnosis records equals the definitions; and with nothing in force the model is its shadow again, to the last bit.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import hypothesis.strategies as st
import torch
from hypothesis import assume
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

import symskew
import tiny
from fuzz.holding import CLOSE, KNOWING, SETTINGS, TALLY, WHOLE, WINDOWS, Block, Expecting, check_reading
from fuzz.interrupting import interrupted
from fuzz.meddling import DEEDS, Deed, Subject, out_of_reach
from fuzz.shadow import FAMILIES, Family, Pipeline, dispatch, structure, world
from symskew import SilentControlError, SilentProbeError

ERRORS: list[type[BaseException]] = [RuntimeError, ValueError, KeyboardInterrupt, GeneratorExit]
MAKE: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}
MOST = 5
"""Blocks at a time: more tell nothing new."""


class Machine(RuleBasedStateMachine):
    """One model, its shadow, and everybody who does something to them."""

    families: ClassVar[Mapping[str, Family]] = FAMILIES
    compiles = False

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.exits = ExitStack()
        self.built = self.fresh = self.compiled = False
        self.wrapped: set[str] = set()
        """Layers that somebody wrapped: what is attached below can but fall asleep."""

    @initialize(data=st.data(), piped=st.booleans(), always=st.booleans())
    def build(self, data: Any, piped: bool, always: bool) -> None:
        """Make the two, as bare models or in pipelines; `always`: to be run after every step."""
        family = self.families[data.draw(st.sampled_from(list(self.families)), "family")]
        self.exits.enter_context(dispatch.attention_backend("native"))  # a model's choice becomes everyone's
        models = family.build(), family.build()
        piped = piped and not (family.text or family.bare)
        pipes = [Pipeline(model, tiny.ddim()) if piped else None for model in models]
        self.subject, other = (Subject(*both, family) for both in zip(models, pipes, strict=True))
        self.subjects = self.subject, other
        self.shadow = family.shadow(other.model)
        for model in models if family.bare else ():  # what some keep of their first forward is no trace of ours
            family.forward(model, family.inputs(model, 1, 0.0))
        self.names = family.layers(self.subject.model)
        self.before, self.always, self.built = world(), always, True
        TALLY.sequences += 1

    # --- what symskew does ---

    @precondition(lambda self: len(self.blocks) < MOST)
    @rule(
        data=st.data(), setting=st.sampled_from(list(SETTINGS)), window=st.sampled_from(WINDOWS), enabled=st.booleans()
    )
    def control(self, data: Any, setting: str, window: tuple[float, float], enabled: bool) -> None:
        """Begin to control some layers, within a `with` or without."""
        assume(not (self.subject.family.bare and setting in KNOWING))
        how = {"window": window if self.subject.pipe else WHOLE, "enabled": enabled}
        self._begin(Block(self._target, self._some(data), SETTINGS[setting], **how))

    @precondition(lambda self: len(self.blocks) < MOST)
    @rule(data=st.data())
    def diagnose(self, data: Any) -> None:
        """Begin to record some layers."""
        self._begin(Block(self._target, self._some(data)))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), error=st.sampled_from([None, *ERRORS]))
    def leave(self, data: Any, error: type[BaseException] | None) -> None:
        """End any of what is in force, in any order, well or by an error."""
        block = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1), "which"))
        if error is None or block.enabled:
            self._end(block)
        else:
            block.fail(error("from within the block"))
        self.fresh = True

    @precondition(lambda self: any(block.enabled for block in self.blocks))
    @rule()
    def disable_all(self) -> None:
        """End all that is in force without a block."""
        ended = [block for block in self.blocks if block.enabled]
        self.blocks = [block for block in self.blocks if not block.enabled]
        must, may = (set().union(*some) for some in zip(*(block.complaint() for block in ended), strict=True))
        with Expecting(must, may):
            symskew.disable(self._target)
        assert not any(block.given.open for block in ended)
        self.fresh = True

    @precondition(lambda self: not self.compiled)
    @rule(data=st.data(), what=st.sampled_from(["beginning", "ending", "running"]), line=st.integers(1, 400))
    def interrupt(self, data: Any, what: str, line: int) -> None:
        """Ctrl-C on any line: what is to be attached is, or nothing is; what is to be let go of, is."""
        ending = [block for block in self.blocks if not block.enabled]
        if what == "beginning" and len(self.blocks) < MOST:
            some = data.draw(st.sampled_from([SETTINGS["blend"], None]), "settings")
            enabled = some is not None and data.draw(st.booleans(), "enabled")
            block = Block(self._target, self._some(data), some, enabled=enabled)
            with Expecting(set(), {KeyboardInterrupt}), interrupted(line):
                block.begin()
            if block.given is not None:
                self.blocks.append(block)
        elif what == "ending" and ending:
            block = data.draw(st.sampled_from(ending), "which")
            self.blocks.remove(block)
            with Expecting(set(), {KeyboardInterrupt, block.silence}), interrupted(line):
                block.end()
        else:
            self._broken(KeyboardInterrupt, lambda: interrupted(line))
        TALLY.interruptions += 1
        self.fresh = True

    # --- what the model does ---

    @rule(seed=st.integers(1, 3), steps=st.integers(1, 4))
    def run(self, seed: int, steps: int) -> None:
        """Run the model, and hold what it gives to what it has to give."""
        self._run(seed, steps)

    @precondition(lambda self: not self.compiled)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def broken_off(self, data: Any, error: type[BaseException]) -> None:
        """An error at any place within a forward."""
        modules = list(self.subject.model.modules())
        module = modules[data.draw(st.integers(0, len(modules) - 1), "module")]

        def stop(*_: Any) -> None:
            raise error("from within a forward")

        hook = module.register_forward_pre_hook(stop, prepend=True)
        try:
            self._broken(error, ExitStack)
        finally:
            hook.remove()
        self.fresh = True

    # --- what others do ---

    @rule(data=st.data(), index=st.integers(0, 9))
    def meddle(self, data: Any, index: int) -> None:
        """What somebody else does to the model."""
        self._done(data, index, [deed for deed in DEEDS if not deed.after])

    @precondition(lambda self: any(deed.after and deed.possible(self.subject) for deed in DEEDS))
    @rule(data=st.data())
    def undo_meddling(self, data: Any) -> None:
        """What somebody else did is undone."""
        self._done(data, 0, [deed for deed in DEEDS if deed.after])

    @precondition(lambda self: not self.compiled)
    @rule(way=st.sampled_from(list(MAKE)))
    def duplicate(self, way: str) -> None:
        """A copy is refused while it would run the layers of the original, and else is a copy."""
        assume(not self.subject.done - {"double", "bfloat16", "float", "torch's processors"})
        assume(way == "deepcopy" or not self.subject.family.bare)
        # Pickling meets functions first, on the root, which Python itself refuses; what is asleep is no less bound.
        refusal: set[Any] = {TypeError} if way == "deepcopy" else {TypeError, AttributeError, pickle.PicklingError}
        with Expecting(refusal if self.blocks else set(), refusal if self.wrapped else set()):
            duplicate = MAKE[way](self.subject.model)
            inputs = self._inputs(1, 500.0)
            assert torch.equal(self._forward(duplicate, inputs), self.shadow.vanilla(inputs))
        self.fresh = True

    @precondition(lambda self: self.compiles and not self.compiled)
    @rule()
    def compile(self) -> None:
        """Compile the model where it is."""
        self.subject.model.compile(backend="aot_eager")
        self.compiled = self.fresh = True

    # --- what has to be true ---

    @invariant()
    def holds(self) -> None:
        """After every step, where the sequence says so, a run; and without blocks nothing is left of them."""
        if not self.fresh:
            return
        self.fresh = False
        TALLY.steps += 1
        self._check_state()
        if self.always:
            self._run(1, 2)
        if not self.blocks:
            self._check_restored()

    def teardown(self) -> None:
        """End everything, and find the model as it was."""
        with self.exits:
            while self.blocks:
                self._end(self.blocks.pop())
            if self.built:
                self._check_restored()
            if self.compiled:
                torch.compiler.reset()

    def _check_state(self) -> None:
        """What would be saved knows of nothing."""
        state, wanted = (subject.model.state_dict() for subject in self.subjects)
        assert list(state) == list(wanted)
        for name, value in state.items():  # where a forward was broken off, offloaded and cast weights stay as they are
            assert value.is_meta or wanted[name].is_meta or torch.equal(value.double(), wanted[name].double()), name

    def _check_restored(self) -> None:
        found, wanted = structure(self.subject.model), structure(self.shadow.model)
        asleep = tuple(f"{name}: " for name in self.wrapped)
        for name in sorted(found.keys() | wanted.keys()):
            one, other = found.get(name, "nothing"), wanted.get(name, "nothing")
            assert one == other or name.startswith(asleep), f"{name} is {one} where {other} was expected"
        assert world() == self.before
        inputs = self._inputs(2, 321.0)
        got, want = self._forward(self.subject.model, inputs), self.shadow.vanilla(inputs)
        assert torch.equal(got, want), f"{float((got - want).abs().max())} off with nothing in force"

    def _done(self, data: Any, index: int, deeds: list[Deed]) -> None:
        names = [deed.name for deed in deeds if deed.possible(self.subject)]
        assume(names)
        name = data.draw(st.sampled_from(names), "deed")
        deed = next(deed for deed in DEEDS if deed.name == name)
        for subject in self.subjects:
            deed(subject, index)
        if name == "wrapper":
            self.wrapped.add(self.names[index % len(self.names)])
        TALLY.deeds[name] = TALLY.deeds.get(name, 0) + 1
        self.fresh = True

    def _begin(self, block: Block) -> None:
        block.begin()
        self.blocks.append(block)
        self.fresh = True

    def _end(self, block: Block) -> None:
        with Expecting(*block.complaint()):
            block.end()

    def _broken(self, error: type[BaseException], breaking: Any) -> None:
        for block in self.blocks:
            block.runs += 1
        # It may never come, and what comes after it may be refused.
        refused = {error, SilentControlError, SilentProbeError, ValueError}
        with Expecting(set(), refused), breaking():
            self._forward(self.subject.model, self._inputs(1, self._times(1)[0]))

    def _run(self, seed: int, steps: int) -> None:
        times, beyond = self._times(steps), out_of_reach(self.subject)
        fractions = [place / len(times) for place in range(len(times))]
        empty = any(not any(map(block.holds, fractions)) for block in self.blocks)  # a window without a step
        for time, fraction in zip(times, fractions, strict=True):
            inputs, active = self._inputs(seed, time), [block for block in self.blocks if block.holds(fraction)]
            reached = [block for block in active if block.names & beyond]
            must: set[Any] = {block.silence for block in reached if block.acts or block.settings is None}
            for block in self.blocks if empty else active:
                block.runs += 1
            got = None
            with Expecting({ValueError} if empty else must, {block.silence for block in reached}):
                got = self._forward(self.subject.model, inputs)
            if got is None:
                return
            self._compare(inputs, active, got)
            for block in active:
                block.good += not block.names & beyond
        for subject in self.subjects if self.subject.pipe else ():
            subject.pipe.maybe_free_model_hooks()

    def _compare(self, inputs: dict[str, Any], active: list[Block], got: Tensor) -> None:
        settings = {name: block.settings for block in active for name in block.names if block.settings is not None}
        if not self.compiled and all(some.is_identity for some in settings.values()):
            assert torch.equal(got, self.shadow.vanilla(inputs)), f"not bit for bit under {settings}"
        want = self.shadow.dense(inputs, settings)
        # Some classes of diffusers compute in float32 on the way, whatever they are given.
        atol, rtol = CLOSE[torch.float32 if self.subject.family.bare else got.dtype]
        torch.testing.assert_close(got, want, atol=atol, rtol=rtol, msg=lambda m: f"{m}\nin force: {settings}")
        TALLY.compared += 1
        for block in active:
            if block.settings is None:
                len(block.given)  # brings in what is pending
                readings = block.given.generations[-1].readings[-1]
                names = [block.given.layers[reading.layer].name for reading in readings]
                assert set(names) == block.names
                for name, reading in zip(names, readings, strict=True):
                    rounding = 0.06 if got.dtype == torch.bfloat16 else 2e-3
                    check_reading(reading.numbers, self.shadow.seen[name], rounding, name)

    @property
    def _target(self) -> Any:
        return self.subject.pipe or self.subject.model

    def _some(self, data: Any) -> set[str]:
        return data.draw(st.sets(st.sampled_from(self.names), min_size=1), "layers")

    def _times(self, steps: int) -> list[float]:
        if self.subject.pipe is None:
            return [500.0]
        for subject in self.subjects:
            subject.pipe.scheduler.set_timesteps(steps)
        return [float(time) for time in self.subject.pipe.scheduler.timesteps]

    def _forward(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return self.subject.family.forward(model, inputs)

    def _inputs(self, seed: int, time: float) -> dict[str, Any]:
        return self.subject.family.inputs(self.shadow.model, seed, time)
