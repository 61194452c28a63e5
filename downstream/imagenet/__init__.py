"""Published test sets of ImageNet's classes, read from the folders and files that their authors give out."""
