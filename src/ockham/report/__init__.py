"""From run folders to tables, figures and one page. Reads what ockham.record.folder describes, and nothing else."""
