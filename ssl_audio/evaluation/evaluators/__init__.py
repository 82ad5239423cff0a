"""Checkpoints as the evaluators that people use want them: HEAR, X-ARES, SUPERB and mteb. One small file each."""
