"""What the paper compares DelayNet with on the cue task: other networks, another learning rule."""
