"""Many runs in one program: the plan, the stacked model, the engine. Knows nothing of Lightning.

The plan is imported before torch is, so that this file imports nothing.
"""
