"""Commands run side by side, each a step of a whole, shown together and resumable."""
