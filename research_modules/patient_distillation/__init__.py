"""Distillation as function matching: one view for teacher and student, and many of them."""
