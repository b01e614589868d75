"""The workloads under pytest-benchmark: `python -m pytest benchmarks --benchmark-only`.

All tools share this process, so their thread pools disturb each other where several threads work
(large vectors, large networks). `report.py` measures each tool in a process of its own; quote
that.
"""

import pytest
import workloads

CASES = workloads.cases()
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


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "_") for case in CASES])
def test_wrong_gradient_is_noticed(case):
    """A gradient with one entry changed is never timed."""
    value, gradients = case.expected()
    wrong = [gradient * 1.0 for gradient in gradients]
    wrong[-1] = wrong[-1] * 1.001
    with pytest.raises(workloads.WrongResultError):
        workloads.check(case, workloads.Prepared(lambda: (value, wrong), (), lambda r: r))
