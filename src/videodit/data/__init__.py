"""From files, captions and the toybox to frames, text and cached latents."""
