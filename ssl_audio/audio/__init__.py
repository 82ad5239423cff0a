"""Signal processing: audio files, spectrograms, augmentations. Knows only tensors."""
