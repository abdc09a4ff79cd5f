"""The command line: one file for each verb. `main` is the entry point; errors become exit codes here."""

from __future__ import annotations

import gc
import sys

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 done (even if every claim is refuted), 1 verification failed, 2 bad input, 130 interrupted.
    """
    from prosect.core.errors import ProsectError

    try:
        from prosect.cli.app import app

        code = app(args=arguments, prog_name="prosect", standalone_mode=False)
        if code == INTERRUPTED:  # typer makes Ctrl-C an exit code
            raise KeyboardInterrupt
    except ProsectError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes where it stopped")
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except Exception as error:
        import typer

        if isinstance(error, typer.Abort):
            _complain("interrupted; the same command resumes where it stopped")
            return INTERRUPTED
        show = getattr(error, "show", None)
        if show is not None and isinstance(error, _usage_error()):
            show(file=sys.stderr)
            return 2
        raise
    return code if isinstance(code, int) else 0


def _complain(text: str) -> None:
    from prosect.cli.show import complain

    complain(text)


def _usage_error() -> type:
    """What all complaints about arguments are; whether typer brings its own click or not."""
    import typer

    return next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def run() -> None:
    """The console script."""
    from prosect.core.allocation import keep_freed_memory

    keep_freed_memory()
    gc.set_threshold(100_000, 50, 50)  # records are many and hold no cycles; looking for some takes its time
    sys.exit(main())
