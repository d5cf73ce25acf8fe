"""Distillation losses, a file each; the file's name is the loss's name and the name of the function in it.

A file has no such function where no part without weights or memory is the loss (crd): then only the class.

A loss takes what it needs by the names of its positional parameters: `student_logits`, `teacher_logits`, `targets`,
`indices`, and of the layers that are tapped `student_feature`, `teacher_feature` (it is computed for each pair and
summed) or `student_features`, `teacher_features` (all at once). Its settings are annotated keyword-only parameters:
those are what a recipe may say. Sums run over classes, means over the batch.

Where it has weights or a memory the file also has a class, CamelCase of the name, built from `student_shape`,
`teacher_shape` (or `…_shapes`) and, if it asks, `sample_count`; then its keyword-only parameters are the settings.

    TAPS = "embedding"    on features: what is tapped where nobody says, "middle", "stages", "maps", "last", "embedding"
    NEEDS_LABELS = True   it has no value without targets
    WHOLE_ROW = True      it needs every class's own logit: stored top-k outputs would change it
    SIGNED = True         it can be below 0
    GRAFTS = True         it changes the student itself; see edgekd.distillation.graft
"""
