"""Event streams that never end: joined to labelled examples, committed, watched."""
