"""What a verb does, as typed functions that return values; callable from Python. Floor 7."""
