"""The model floor: waveform to token states."""
