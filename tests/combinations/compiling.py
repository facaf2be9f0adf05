"""torch.compile, whose tests take long and have a file of their own."""

from __future__ import annotations

from combinations.case import MEASURES, proved

PART, FILE = "torch.compile", "test_attach_compile"
CASES = [
    proved(PART, "one full graph whatever the numbers: UNet, SD3, FLUX, PixArt",
           f"{FILE}::test_one_full_graph_for_all_numbers", diagnosis=MEASURES,
           note="a graph without control, one with it, one with a diagnosis"),
    proved(PART, "every kind of setting in a full graph",
           f"{FILE}::test_every_kind_of_setting_makes_a_full_graph", diagnosis="–"),
    proved(PART, "alpha and beta as tensors", f"{FILE}::test_tensors_of_new_numbers_are_no_new_graph",
           diagnosis="–", note="new numbers are no new graph"),
    proved(PART, "blocks compiled one by one", f"{FILE}::test_blocks_compiled_one_by_one_share_their_graphs",
           diagnosis=MEASURES, note="they share their graphs"),
    proved(PART, "part of the schedule; values that change from step to step",
           f"{FILE}::test_a_window_on_a_compiled_pipeline",
           "test_attach_ramp::test_compiled_a_ramp_takes_no_graph_for_each_step", diagnosis="–",
           note="no graph for each step"),
    proved(PART, "sizes that change (`dynamic=True`)", f"{FILE}::test_sizes_that_change", diagnosis=MEASURES),
    proved(PART, "compiled in place, and under control", f"{FILE}::test_compiled_in_place_and_within_control",
           f"{FILE}::test_compiled_within_a_diagnosis", diagnosis=MEASURES),
    proved(PART, "the inductor's kernels for a CPU", f"{FILE}::test_kernels_of_the_inductor", diagnosis=MEASURES),
    proved(PART, "diagnosis of compiled models", "test_diagnose::test_compiled_models", control="–",
           diagnosis=MEASURES),
]  # fmt: skip
