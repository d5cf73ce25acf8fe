"""Distillation losses, a file each; the file's name is the loss's name and the name of the function in it.

A loss takes what it needs by the names of its positional parameters (`student_logits`, `teacher_logits`,
`targets`), and its settings as annotated keyword-only parameters: those are what a recipe may say.
Sums run over classes, means over the batch.
"""
