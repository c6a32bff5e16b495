"""Where executors start. Each platform is a thin way to run what `wukong.executor` decides."""
