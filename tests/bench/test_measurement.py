from __future__ import annotations

from datetime import datetime

import pytest

from edgekd.bench.measurement import Measurement


def test_the_figures_of_a_record_agree_with_each_other(measured):
    for entry in measured:
        latency = entry.latency_ms
        assert 0 < latency.min <= latency.p50 <= latency.p90 <= latency.p95 <= latency.p99 <= latency.max
        assert entry.throughput_per_s == pytest.approx(entry.batch_size * entry.runs / entry.seconds, rel=1e-3)
        assert len(entry.samples_ms) == -(-entry.runs // entry.samples_every)
        assert entry.warmup.runs > 0
        assert entry.memory.baseline_bytes < entry.memory.loaded_bytes <= entry.memory.peak_bytes
        assert entry.file.name == "small.onnx"
        assert datetime.fromisoformat(entry.started).utcoffset().total_seconds() == 0


def test_what_is_not_known_has_a_reason(measured):
    entry = measured[0]
    readings = {"clocks_mhz": entry.clocks_mhz.before, "temperatures_c": entry.temperatures_c.before}
    values = {**readings, "energy_mj": entry.energy_mj, "power_mode": entry.power_mode, "cuda_graph": entry.cuda_graph}
    assert {name for name, value in values.items() if value is None} == set(entry.unavailable)


def test_a_record_is_json_and_comes_back_equal(measured):
    for entry in measured:
        assert Measurement.model_validate_json(entry.model_dump_json()) == entry
