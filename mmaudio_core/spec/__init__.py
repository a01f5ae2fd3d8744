"""Facts: audio formats, token counts, model sizes. Nothing here imports torch."""
