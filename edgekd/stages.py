"""All links of the chain: what each is keyed by, and what makes it. The order is pipeline.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd import evaluation, measuring
from edgekd.bench.environment import environment, fingerprint
from edgekd.export import bundle as bundles
from edgekd.export import onnx as exports
from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.links import Console, settings_json
from edgekd.network_stages import NetworkStages
from edgekd.runtime.backends import builders
from edgekd.store.artifacts import Bundle, Checkpoint, Dataset, Evaluation, Measurements, OnnxModel

__all__ = ["Console", "Stages"]


@dataclass(frozen=True)
class Stages(NetworkStages):
    """The links that make networks, and here those that make files of them and measure these."""

    def exported(self, name: ModelId, source: Checkpoint | OnnxModel, data: Dataset) -> OnnxModel:
        """A network in one variant, converted from its checkpoint or, where the variant has a base, from that graph."""
        variant, settings = variants.find(name.variant), self.recipe.export
        return self.store.stage(
            OnnxModel,
            f"export-{name}",
            version=exports.VERSION,
            settings={"opset": settings.opset, "tolerance": settings_json(settings.tolerance_of(name.variant))},
            inputs={"source": source, "data": data},
            make=lambda out: variant.convert(source, data, settings, out),
        )

    def evaluated(
        self, models: Mapping[ModelId, OnnxModel], data: Dataset, heads: Mapping[str, Dataset] | None = None
    ) -> Evaluation:
        """`heads`: the data of further heads, by name."""
        further = heads or {}
        return self.store.stage(
            Evaluation,
            "evaluate",
            version=evaluation.VERSION,
            settings={},
            inputs={**_named(models), "data": data, **{f"data-{name}": own for name, own in further.items()}},
            make=lambda out: evaluation.evaluate_models(models, data, out, heads=further),
        )

    def measured(self, models: Mapping[ModelId, OnnxModel]) -> Measurements:
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
            inputs=_named(models),
            make=lambda out: measuring.measure_models(models, settings, out, progress=self.progress("bench")),
        )

    def engines(self, bundle: Bundle, shipped: Mapping[str, ModelId]) -> Measurements:
        """The bundle's engines, built and measured on this machine by every backend that builds them here."""
        settings = self.recipe.bench
        devices = {backend.name: dict(builder.device()) for backend, builder in builders()}
        machine = {"machine": fingerprint(environment()), "built_for": devices}
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
        shipped: Mapping[str, ModelId],
        models: Mapping[ModelId, OnnxModel],
        student: Checkpoint,
        scores: Evaluation,
        measurements: Measurements,
        data: Dataset,
    ) -> Bundle:
        name = self.recipe.name
        contents = bundles.Contents(name, shipped, models, student)
        return self.store.stage(
            Bundle,
            "bundle",
            version=bundles.VERSION,
            settings={"name": name, "variants": {variant: str(model) for variant, model in shipped.items()}},
            inputs={
                **{str(model): models[model] for model in shipped.values()},
                "student": student,
                "evaluation": scores,
                "measurements": measurements,
                "data": data,
            },
            make=lambda out: bundles.pack(contents, scores, measurements, data, out),
        )


def _named(models: Mapping[ModelId, OnnxModel]) -> dict[str, OnnxModel]:
    return {str(name): model for name, model in models.items()}
