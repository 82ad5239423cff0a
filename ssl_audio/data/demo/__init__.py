"""The sources of the demo corpus: who says what (`script`), the speech synthesiser (`speech`), ten sound
events (`sounds`) and the recording conditions that make it less than perfect (`conditions`).

Nothing is downloaded and nothing is recorded: every clip is a pure function of a seed and of its key.
"""
