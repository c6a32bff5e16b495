"""Calls submitted one by one: their order, dependencies and values. How people hold them: `wukong.futures`."""
