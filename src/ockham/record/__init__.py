"""The run folder and the life of the run in it. Imports nothing: what only reads a folder does not wait for torch."""
