"""What people get to see of runs, and of the machine they run on."""
