"""The workloads under pytest-benchmark: `python -m pytest benchmarks --benchmark-only`.

All tools share this process, so their thread pools disturb each other where several threads work
(large vectors, large networks). `report.py` measures each tool in a process of its own; quote
that.
"""

import programs
import pytest
import workloads

CASES = workloads.cases() + workloads.program_cases()
PAIRS = [(case, tool) for case in CASES for tool in workloads.TOOLS if tool in case.adapters]


@pytest.mark.parametrize(
    ("case", "tool"), PAIRS, ids=[f"{case.name}-{tool}".replace(" ", "_") for case, tool in PAIRS]
)
def test_workload(benchmark, case, tool):
    """The result is the expected one; then it is timed."""
    if reason := workloads.missing(tool):
        pytest.skip(reason)
    prepared = case.adapters[tool]()
    benchmark.group = case.name
    benchmark.extra_info["difference"] = workloads.check(case, prepared)
    benchmark(prepared.function, *prepared.arguments)


@pytest.mark.parametrize("kind", ["arith", "chain", "vectors"])
def test_planning(benchmark, kind):
    """Planning of a graph of 10^5 nodes."""
    from fastgrad._core.program import Plan

    benchmark.group = "planning"
    benchmark(Plan, programs.long_graph(kind, 10**5))


WITH_GRADIENTS = [case for case in workloads.cases() if case.expected()[1]]


@pytest.mark.parametrize("case", WITH_GRADIENTS,
                         ids=[case.name.replace(" ", "_") for case in WITH_GRADIENTS])
def test_wrong_gradient_is_noticed(case):
    """A gradient with one entry changed is never timed."""
    value, gradients = case.expected()
    wrong = [gradient * 1.0 for gradient in gradients]
    wrong[-1] = wrong[-1] * 1.001
    with pytest.raises(workloads.WrongResultError):
        workloads.check(case, workloads.Prepared(lambda: (value, wrong), (), lambda r: r))
