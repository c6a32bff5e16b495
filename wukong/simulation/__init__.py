"""The real executor core on the reference store, in virtual time, through faults: one seed decides everything."""
