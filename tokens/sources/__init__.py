"""Where images come from: folders, tar files, data sets."""
