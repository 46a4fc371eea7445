"""Bregman PCA of a teacher's layer, and students that predict its coefficients."""
