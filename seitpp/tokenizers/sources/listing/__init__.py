"""Which images a folder or a tar holds, and what in it is left out."""
