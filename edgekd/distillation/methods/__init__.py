"""Distillation losses, one file per loss; the file's name is the loss's name and the name of the function in it.

A file exports `METHOD = Method(...)`, which declares the loss's properties; see
edgekd.distillation.method. Where all of the loss has weights or a memory (crd) it has only the class.

A loss takes what it needs by the names of its positional parameters: `student_logits`, `teacher_logits`, `targets`,
`indices`, and of the layers that are tapped `student_feature`, `teacher_feature` (it is computed for each pair and
summed) or `student_features`, `teacher_features` (all at once). Its annotated keyword-only parameters are what a
recipe may set. Sums run over classes, means over the batch.

Where it has weights or a memory the file also has a class, CamelCase of the name, built from `student_shape`,
`teacher_shape` (or `…_shapes`) and, where it needs it, `sample_count`; then its keyword-only parameters are those of
the recipe.
"""
