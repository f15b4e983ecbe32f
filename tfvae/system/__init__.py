"""What has nothing to do with recommendation: errors, files, checked settings, the machine."""
