"""`python -m derain_cli`, and the console script `derain`."""


def main() -> None:
    """Run the command line."""
    from derain_cli.cli.app import app

    app()


if __name__ == "__main__":
    main()
