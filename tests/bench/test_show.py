from __future__ import annotations

from edgekd.bench.measure import benchmark
from edgekd.bench.show import notes, show


def test_figures_of_a_busy_or_throttled_machine_are_noted(small_net):
    (entry,) = benchmark(small_net, seconds=0.02, warmup_seconds=0.0)
    steady = entry.throttling.model_copy(update={"flagged": False})
    assert notes([entry.model_copy(update={"busy": False, "throttling": steady})]) == []
    slower = entry.throttling.model_copy(update={"flagged": True, "slower_share": 0.25})
    busy, throttled = notes([entry.model_copy(update={"busy": True, "throttling": slower})])
    assert "busy" in busy and "batch 1" in busy
    assert "25.0% slower" in throttled


def test_the_heading_names_what_the_engine_ran_on(small_net, capsys):
    (entry,) = benchmark(small_net, seconds=0.02, warmup_seconds=0.0)
    show([entry])
    assert f"threads {entry.threads}, {entry.environment.cpu}" in capsys.readouterr().out
    show([entry.model_copy(update={"runs_on": "cuda:0, Orin"})])
    heading = capsys.readouterr().out.partition("\n")[0]
    assert "cuda:0, Orin" in heading and "threads" not in heading


def test_an_emulated_processor_is_named_once_and_in_the_heading(small_net, capsys):
    (entry,) = benchmark(small_net, seconds=0.02, warmup_seconds=0.0)
    environment = entry.environment.model_copy(update={"emulated": "a sign"})
    emulated = entry.model_copy(update={"environment": environment, "provenance": "emulated"})
    assert "emulated" not in str(notes([entry]))
    assert [note.partition(":")[0] for note in notes([emulated, emulated])].count("The processor is emulated") == 1
    show([emulated])
    assert "(this-machine, emulated)" in capsys.readouterr().out.partition("\n")[0]
