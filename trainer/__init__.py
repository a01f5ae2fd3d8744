"""Training of MMAudio's networks (arXiv 2412.15322): from videos and recordings to safetensors that the core loads."""
