"""Techniques: research modules that come with the learner, one file each."""
