"""What every training run needs, whatever it trains: folder, checkpoints, metrics, schedules, processes, seeds."""
