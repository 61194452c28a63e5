"""Where images come from: folders, tar files, Hugging Face, torchvision."""
