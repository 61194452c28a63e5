"""Images inside tar files: an index of the members of each, and the images among them."""
