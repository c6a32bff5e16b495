"""Control stores: the records of jobs, changed only by the atomic requests of `wukong.protocol`."""
