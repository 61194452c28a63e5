"""Which rows come when: the keyed permutation, and the order of the samples of an epoch."""
