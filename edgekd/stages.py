"""All links of the chain: what each is keyed by, and what makes it. The order is pipeline.py's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgekd import evaluation, measuring
from edgekd.bench.environment import environment, fingerprint
from edgekd.export import bundle as bundles
from edgekd.export import onnx as exports
from edgekd.links import Console, settings_json
from edgekd.network_stages import NetworkStages
from edgekd.recipe.settings import ExportSettings, Variant
from edgekd.runtime.backends._cuda import device
from edgekd.store.artifacts import Artifact, Bundle, Checkpoint, Dataset, Evaluation, Measurements, OnnxModel

__all__ = ["Console", "Stages"]

Source = TypeVar("Source", bound=Artifact)


@dataclass(frozen=True)
class Stages(NetworkStages):
    """The links that make networks, and here those that make files of them and measure these."""

    def exported(self, role: str, checkpoint: Checkpoint, data: Dataset) -> OnnxModel:
        return self._graph(role, "fp32", exports.onnx_from_checkpoint, checkpoint, data)

    def halved(self, role: str, model: OnnxModel, data: Dataset) -> OnnxModel:
        return self._graph(role, "fp16", exports.fp16_from_fp32, model, data)

    def exported_int8(self, role: str, checkpoint: Checkpoint, data: Dataset) -> OnnxModel:
        return self._graph(role, "int8", exports.int8_from_checkpoint, checkpoint, data)

    def exported_x64(self, role: str, model: OnnxModel, data: Dataset) -> OnnxModel:
        return self._graph(role, "int8-x64", exports.x64_from_int8, model, data)

    def evaluated(
        self, models: Mapping[str, OnnxModel], data: Dataset, heads: Mapping[str, Dataset] | None = None
    ) -> Evaluation:
        """`heads`: the data of further heads, by name."""
        further = heads or {}
        return self.store.stage(
            Evaluation,
            "evaluate",
            version=evaluation.VERSION,
            settings={},
            inputs={**models, "data": data, **{f"data-{name}": own for name, own in further.items()}},
            make=lambda out: evaluation.evaluate_models(models, data, out, heads=further),
        )

    def measured(self, models: Mapping[str, OnnxModel]) -> Measurements:
        settings = self.recipe.bench
        return self.store.stage(
            Measurements,
            "bench",
            version=measuring.VERSION,
            # Boards that are not at hand are not measured.
            settings={
                **settings_json(settings),
                "devices": measuring.at_hand(settings),
                "machine": fingerprint(environment()),
            },
            inputs=models,
            make=lambda out: measuring.measure_models(models, settings, out, progress=self.progress("bench")),
        )

    def engines(self, bundle: Bundle, shipped: Mapping[str, str]) -> Measurements:
        """The bundle's engines, built and measured on this machine's GPU."""
        settings, gpu = self.recipe.bench, device()
        machine = {"machine": fingerprint(environment()), "gpu": gpu.name, "capability": gpu.compute_capability}
        return self.store.stage(
            Measurements,
            "engines",
            version=measuring.VERSION,
            settings={**settings_json(settings, exclude={"devices", "threads"}), **machine},
            inputs={"bundle": bundle},
            make=lambda out: measuring.measure_engines(
                bundle, shipped, settings, out, progress=self.progress("engines")
            ),
        )

    def bundled(
        self,
        variants: Mapping[str, str],
        models: Mapping[str, OnnxModel],
        student: Checkpoint,
        scores: Evaluation,
        measurements: Measurements,
        data: Dataset,
    ) -> Bundle:
        name = self.recipe.name
        return self.store.stage(
            Bundle,
            "bundle",
            version=bundles.VERSION,
            settings={"name": name, "variants": dict(variants)},
            inputs={
                **{model: models[model] for model in variants.values()},
                "student": student,
                "evaluation": scores,
                "measurements": measurements,
                "data": data,
            },
            make=lambda out: bundles.pack(name, variants, models, student, scores, measurements, data, out),
        )

    def _graph(
        self,
        role: str,
        variant: Variant,
        convert: Callable[[Source, Dataset, ExportSettings, Path], OnnxModel],
        source: Source,
        data: Dataset,
    ) -> OnnxModel:
        settings = self.recipe.export
        return self.store.stage(
            OnnxModel,
            f"export-{role}-{variant}",
            version=exports.VERSION,
            settings={"opset": settings.opset, "tolerance": settings_json(settings.tolerance_of(variant))},
            inputs={"source": source, "data": data},
            make=lambda out: convert(source, data, settings, out),
        )
