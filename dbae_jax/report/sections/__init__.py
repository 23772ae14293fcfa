"""The sections of the report that need the model or its data: each file computes one."""
