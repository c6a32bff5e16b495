"""The plan: a graph compiled into integer columns, its static schedules, and its form on the wire. Pure, no I/O."""
