"""What people look at and take away: the summary on the terminal, the overview page, the release bundle."""
