"""`python -m vlp_gym` is `vlp`, for launchers that start modules: `accelerate launch -m vlp_gym train`."""

from vlp_gym.cli import main

if __name__ == "__main__":
    main()
