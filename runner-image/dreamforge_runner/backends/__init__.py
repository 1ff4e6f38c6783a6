"""What turns parameters into pixels: the port (``base``), ``sketch`` (no model), ``sdxl`` (torch, diffusers)."""
