"""How executors agree: states, messages and the reference model of the control store. Pure, no I/O."""
