"""Training of CLIP and of Synchformer's visual tower by contrast: what belongs together against what does not."""
