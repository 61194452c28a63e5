"""What every command shares: errors, files, configuration, command line, progress, run folder, results."""
