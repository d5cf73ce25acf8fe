"""The links that make data and networks: what each is keyed by, and what makes it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd import plugins, schemes
from edgekd.distillation import teachers
from edgekd.links import Links, settings_json
from edgekd.preflight import channel_multiple
from edgekd.pruning import stage as pruning
from edgekd.quantization import stage as quantization
from edgekd.recipe.settings import TermSettings
from edgekd.schemes import Distilled, Further
from edgekd.store.artifacts import Checkpoint, Dataset
from edgekd.store.store import Plan

Objective = tuple[TermSettings, ...]


@dataclass(frozen=True)
class NetworkStages(Links):
    """A recipe's stages in a store. Every method is one stage: reused where an equal one was finished."""

    def data(self) -> Dataset:
        return self.prepared("data", self.recipe.data)

    def teacher(self, data: Dataset) -> Checkpoint | None:
        """None where the scheme does without."""
        return None if self.recipe.teacher is None else self.taught("teacher", self.recipe.teacher, data)

    def baseline(self, data: Dataset) -> Checkpoint | None:
        """The student from labels alone, in the same steps: what distillation has to beat."""
        if not self.recipe.distill.baseline:
            return None
        return self.trained("baseline", self.recipe.student, self.recipe.distill.training, data)

    def teacher_warnings(self, teacher: Checkpoint | None, baseline: Checkpoint | None) -> tuple[str, ...]:
        """Warnings about the scheme's teacher, shown before a student learns from it; in a plan there are none."""
        settings = self.recipe.distill
        scheme = plugins.load("scheme", settings.scheme.name)
        if teacher is None or isinstance(self.store, Plan):
            return ()
        found = teachers.teacher_warnings(teacher, settings.objective)
        if baseline is not None:
            found += teachers.gap_warnings(teacher, baseline, assisted=getattr(scheme, "ASSISTED", False))
        if self.console is not None:
            for warning in found:
                self.console.warn(warning)
        return tuple(found)

    def student(self, teacher: Checkpoint | None, data: Dataset) -> Distilled:
        """As the recipe's scheme makes it."""
        said = self.recipe.distill.scheme
        scheme = plugins.load("scheme", said.name)
        made: Distilled = scheme.distill(self, teacher, data, schemes.parameters_of(said))
        return made

    def pruned(self, student: Checkpoint) -> Checkpoint | None:
        """Narrower, and not yet recovered."""
        settings = self.recipe.prune
        if settings is None:
            return None
        target, multiple = settings.target, channel_multiple(settings)
        return self.store.stage(
            Checkpoint,
            "prune",
            version=pruning.VERSION,
            settings={"target": settings_json(target), "multiple": multiple},
            inputs={"student": student},
            make=lambda out: pruning.prune(student, target, multiple, out),
        )

    def recovered(
        self,
        pruned: Checkpoint,
        teacher: Checkpoint,
        data: Dataset,
        objective: Objective,
        further: Further | None = None,
    ) -> Checkpoint:
        """On what the recipe says for it, else on `objective`; `further`: as the scheme does it."""
        assert self.recipe.prune is not None
        settings = self.recipe.prune
        if further is not None:
            return further("recover", pruned, settings)
        return self.distilled("recover", pruned, teacher, data, settings, settings.objective or objective)

    def calibrated(self, student: Checkpoint, data: Dataset) -> Checkpoint | None:
        """With int8 quantizers whose scales come from images: post-training quantization."""
        settings = self.recipe.quantize
        if settings is None:
            return None
        images = settings.calibration_images
        return self.store.stage(
            Checkpoint,
            "calibrate",
            version=quantization.VERSION,
            settings={"images": images},
            inputs={"student": student, "data": data},
            make=lambda out: quantization.calibrate(student, data, images, out),
        )

    def quantized(
        self,
        calibrated: Checkpoint,
        teacher: Checkpoint,
        data: Dataset,
        inherited: Objective,
        further: Further | None = None,
    ) -> Checkpoint:
        """Trained through the quantizers; with mode ptq the calibrated network as it is. As recovered()."""
        assert self.recipe.quantize is not None
        settings, augment = self.recipe.quantize, self.recipe.data.augment
        if settings.mode == "ptq":
            return calibrated
        if further is not None:
            begin_epoch = quantization.freezing(settings)
            said = {"freeze_after": settings.freeze_after}
            return further("quantize", calibrated, settings, said=said, begin_epoch=begin_epoch)
        objective = settings.objective or inherited
        return self.store.stage(
            Checkpoint,
            "quantize",
            version=quantization.VERSION,
            settings={
                **settings_json(settings, exclude={"mode", "calibration_images", "baseline"}),
                "objective": [settings_json(term) for term in objective],
                "augment": settings_json(augment),
            },
            inputs={"teacher": teacher, "calibrated": calibrated, "data": data},
            make=lambda out: quantization.quantize(
                teacher,
                calibrated,
                data,
                settings,
                out,
                objective=objective,
                augment=augment,
                progress=self.progress("quantize"),
            ),
        )
