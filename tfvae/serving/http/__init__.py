"""Finished runs behind an HTTP service; it needs `pip install 'tfvae[serve]'`."""
