"""What tells the labels of shards that should not: how recordings were made, who is in which part, what comes twice."""
