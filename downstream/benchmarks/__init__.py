"""Sets of labelled images that others publish: what is known of them, where their files lie, and reading those."""
