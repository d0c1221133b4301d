"""Modules, metrics and decisions that two processes share: ``checks_in_ranks.py``, run in two."""

import json
from pathlib import Path

import pytest
from rank_cases import run_script

SCRIPT = Path(__file__).with_name("checks_in_ranks.py")

TRUE_IN_BOTH = (
    "ddp_averages",
    "fsdp_averages",
    "off_averages",
    "a_method_that_is_named",
    "a_method_of_fsdp_that_is_named",
    "a_method_with_no_wrapper",
    "several_losses_in_a_block",
    "modules_that_share_parameters",
    "one_module_of_two_optimizers",
    "one_optimizer_of_parts_and_wholes",
    "parameters_that_begin_to_train",
    "a_window_of_two_steps",
    "a_window_of_two_steps_under_fsdp",
    "a_window_that_is_cut_short_after_a_step_without_its_module",
    "a_window_under_fsdp_that_is_cut_short_after_a_step_without_its_module",
    "a_module_that_a_step_within_a_window_leaves_out",
    "a_loss_that_is_not_finite_in_one",
    "a_frozen_module_is_sharded_on_request",
    "batch_norm",
    "rows_with_second_gradients",
    "rows_that_need_no_graph",
)
SAME_IN_BOTH = {
    "copies_are_plain": [True] * 5,
    # After each step, whether gradients wait that are another thing in each process.
    "windows_that_never_end_in_one_step": [[True, False, True], True],
    "windows_that_never_end_in_one_step_under_fsdp": [[True, False, True], True],
    "gradients_that_overflow_in_one": [[], ["linear"]],
    "a_frozen_module_is_not_wrapped": [True, True],
    "blocks_by_class": ["FSDPCoder", "ReLU", "FSDPCoder"],
    "blocks_by_size": ["FSDPLinear", "Linear", "FSDPLinear"],
    "buffers_are_those_of_the_first": [1.0, 1.0, 1.0],
    "metrics_of_all": {"loss": 1.4, "extra": 5.0},
    "a_metric_object": {"seen": 11.0},
    "rows_of_all": [[0, 0], [1, 1], [1, 1]],
    "parameters_that_were_gathered": (
        "TaskError: optimizer 'coder' was given coder.second.weight while FSDP2 had all of it "
        "gathered, which is another parameter than the part of it that is trained\n"
        "  fix: add it in a hook, or in train_step before the module is called"
    ),
    "rows_of_other_shapes": (
        "ProcessesError: processes gather rows of tensors that differ: process 0: shape (rows, 2), "
        "torch.float32, without a gradient; process 1: shape (rows, 3), torch.float32, without a "
        "gradient\n"
        "  fix: compute the same in every process; only the number of rows may differ"
    ),
    "rows_of_which_one_has_no_graph": (
        "ProcessesError: processes gather rows of tensors that differ: process 0: shape (rows, 2), "
        "torch.float32, with a gradient; process 1: shape (rows, 2), torch.float32, without a "
        "gradient\n"
        "  fix: compute the same in every process; only the number of rows may differ"
    ),
    "what_the_first_makes": 7,
    "a_method_that_is_not_named": (
        "TaskError: module 'coder' was trained by other ways than its forward, which several "
        "processes do not average\n"
        '  fix: name the methods that train it: "forward_methods": ["..."], or set '
        '"parallel": "off" for \'coder\''
    ),
    "a_module_that_one_process_leaves_out": (
        "TaskError: module 'coder' was not called in the same steps by all processes: in 1 by "
        "process 0, 0 by process 1\n"
        '  fix: let each process call it where the others do, or set "parallel": "off" for '
        "'coder'; what was averaged since then is wrong"
    ),
    "unused_parameters": (
        "TaskError: the loss does not reach all parameters of module 'coder': "
        "coder.second.weight, coder.second.bias\n"
        '  fix: [modules.settings.coder] parallel = {kind = "ddp", find_unused_parameters = true}, '
        'or parallel = "off"'
    ),
    "one_call_over_parts_and_wholes": (
        "TaskError: optimizer 'both' has foreach=True, and of its parameters some are sharded "
        'under FSDP2 (parallel = "fsdp") and some are whole, which torch cannot mix\n'
        "  fix: leave foreach out, or give them a parameter group each"
    ),
    "shared_parameters_under_fsdp": (
        "ProcessesError: modules a, b share parameters, and FSDP2 would untie them\n"
        '  fix: make one module that holds them all, or set "parallel": "ddp" for each'
    ),
    "a_block_that_is_not_there": (
        "ProcessesError: modules.settings.net.parallel.blocks: module 'net' has no part of class "
        "'Codr'; it has: Coder, Linear\n"
        "  closest match: Coder\n"
        "  fix: name the class of its blocks"
    ),
    "a_method_that_is_not_there": (
        "SettingsError: modules.settings.coder.forward_methods: Coder has no method 'encod' "
        "besides forward\n"
        "  closest match: encode\n"
        "  fix: write 'encode'"
    ),
    "a_metric_object_that_cannot_be_merged": (
        "TaskError: metric 'seen' is Lonely, which accumulates by itself and cannot be joined over "
        "processes\n"
        "  fix: give it merge_state(metrics), which takes in other metrics of its class"
    ),
}
NOT_ALIKE = {
    "what_the_first_fails_to_make": [
        "ProcessesError: no way",
        "RankFailedError: process 0 failed: no way\n  fix: see what process 0 says",
    ],
    "what_the_second_fails_to_do": [
        "RankFailedError: process 1 failed: no way\n  fix: see what process 1 says",
        "ProcessesError: no way",
    ],
    "what_both_fail_to_do": [
        "ProcessesError: no way for 0",
        "RankFailedError: process 0 failed: no way for 0\n  fix: see what process 0 says",
    ],
}
EXPECTED = {
    **{name: [True, True] for name in TRUE_IN_BOTH},
    **{name: [found, found] for name, found in SAME_IN_BOTH.items()},
    **NOT_ALIKE,
}


@pytest.fixture(scope="module")
def found():
    """What each of two processes found, by check."""
    return dict(json.loads(line) for line in run_script(2, SCRIPT) if line.startswith("["))


@pytest.mark.parametrize("name", EXPECTED)
def test_two_processes_find(found, name):
    assert found[name] == EXPECTED[name]


def test_every_check_is_expected(found):
    assert found.keys() == EXPECTED.keys()
