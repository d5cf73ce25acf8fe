from __future__ import annotations

from dataclasses import replace

from edgekd.export import variants


def test_a_variant_is_sorted_behind_the_one_that_it_is_converted_from():
    names = ("int8-asym", "fp16", "int8", "fp32")
    assert [each.name for each in sorted(map(variants.find, names), key=lambda each: each.rank)] == [
        *("fp32", "fp16", "int8", "int8-asym")
    ]


def test_a_quantized_checkpoint_needs_its_section():
    fp32 = variants.find("fp32")
    assert not fp32.needs_quantize and replace(fp32, checkpoint="quantized").needs_quantize
