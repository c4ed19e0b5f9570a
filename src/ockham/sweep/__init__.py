"""What a sweep is: its jobs, its folder, how it is executed, continued and summed up. No torch here.

Axis        one override of the command, with every value that it takes
Plan        the jobs of a sweep as they are known by now: a Grid, a Search, which has more as results come in, or a Comparison
Arm         one of what a comparison compares, with the plan of its search
Job         one run: a configuration under one seed, on one fold; the number of its folder
Replicate   seed and fold by which the jobs of one configuration differ
Trial       a configuration that a search suggested, with its jobs; trials of a batch were suggested together
Task        what a slot works on at a time: a job, or a group of jobs that train as one program
Partition   which jobs are grouped, and why the others are alone
Outcome     how a task ended: what Hydra says of a job, or a Failure
"""


class SweepFailedError(RuntimeError):
    """Jobs of a sweep failed; the message lists them."""
