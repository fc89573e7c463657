"""Where samples come from; a task (:mod:`~delaynet_lava.tasks.base`) knows nothing of networks."""
