"""From the bytes of an image file to RGB pixels: which formats, which colours, which size."""
