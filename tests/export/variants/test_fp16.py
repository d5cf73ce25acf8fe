from __future__ import annotations


def test_fp16_halves_the_file_and_reports_its_numerics(exported):
    _, models = exported
    assert models["fp16"].size_bytes < 0.65 * models["fp32"].size_bytes
    report = models["fp16"].metrics["numerics"]
    assert 0 < report["max_difference"] <= report["tolerance"]["difference"]
    assert report["agreement"] >= report["tolerance"]["agreement"]
