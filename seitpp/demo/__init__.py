"""The demo: its images, their split, its steps."""
