"""The data floor: corpora to shards to batches of waveforms. It knows no model."""
