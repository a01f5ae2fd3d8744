"""LoRA (arXiv 2106.09685) on the flow network: small trained matrices beside frozen weights."""
