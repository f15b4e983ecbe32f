"""The command line of tfvae."""
