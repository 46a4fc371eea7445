"""Techniques from papers, one file each, as plug-ins of the learner's recipe."""

DIST = "online-ctr"
