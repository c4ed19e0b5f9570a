"""From run folders to tables, figures and one page. Reads what ockham.record describes, and nothing else."""
