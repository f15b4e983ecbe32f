"""`python -m tfvae` is the same as the command `tfvae`."""

from tfvae.cli.app import main

if __name__ == "__main__":
    main()
