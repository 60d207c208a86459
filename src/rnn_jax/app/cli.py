"""The entry point of `rnn-jax`."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from .errors import InputError, TrainingFailed

EXTRA = "tyro", "tqdm", "matplotlib", "orbax"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 2 for bad input, 1 for a failed training, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if list(argv) == ["--version"]:
        print(f"rnn-jax {version('rnn-jax-bptt')}")
        return 0
    try:
        return _run(argv)
    except (InputError, TrainingFailed) as error:
        print(f"rnn-jax: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print(f"rnn-jax: needs {error.name}: pip install 'rnn-jax-bptt[app]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rnn-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has had enough, `| head` say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: Sequence[str]) -> int:
    import tyro

    from .config import SampleConfig, TrainConfig, check_sample_config, check_train_config

    config = tyro.extras.subcommand_cli_from_dict(
        {"train": TrainConfig, "sample": SampleConfig},
        prog="rnn-jax",
        description="Recurrent networks trained by hand-written backpropagation through time.",
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    # Only here does jax come in: a typing error or --help is answered before.
    if isinstance(config, TrainConfig):
        check_train_config(config)
        return import_module(".train", __package__).train(config)
    check_sample_config(config)
    return import_module(".sample", __package__).sample(config)


if __name__ == "__main__":
    sys.exit(main())
