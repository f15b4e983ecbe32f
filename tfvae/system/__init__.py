"""What is not about recommending: errors, files, settings that are checked, the machine."""
