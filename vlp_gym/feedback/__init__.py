"""The feedback loop: recording, queries, labels, schedule. Knows no gym, simulator or agent."""
