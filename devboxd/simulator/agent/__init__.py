"""The box: its agent, what the agent runs (real shells, commands, connections), its disk and its services."""
