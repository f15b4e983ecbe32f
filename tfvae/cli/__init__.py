"""The commands of tfvae."""
