"""The public names: all there, all documented, and importing them costs nothing until they are used."""

import inspect
import subprocess
import sys

import pytest

import prosect

HEAVY = ("torch", "transformers", "scipy", "sklearn", "interp_engine", "numpy", "pydantic", "rich", "typer")


@pytest.mark.parametrize("name", prosect.__all__)
def test_every_name_resolves_and_is_documented(name):
    value = getattr(prosect, name)
    if name == "__version__":
        assert value.count(".") == 2
        return
    words = inspect.getdoc(value)
    assert words and len(words.split()) > 3
    assert name in dir(prosect)
    if inspect.isclass(value) and not issubclass(value, Exception):
        for method, member in vars(value).items():
            if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{method}"


def test_names_are_sorted_and_once_each():
    assert len(set(prosect.__all__)) == len(prosect.__all__)
    assert list(prosect.__all__) == ["__version__", *sorted(set(prosect.__all__) - {"__version__"})]


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'prosect' has no attribute 'essay'"):
        _ = prosect.essay


def test_importing_costs_nothing():
    code = (
        "import sys, prosect, prosect.cli\n"
        "assert set(prosect.__all__) <= set(dir(prosect))\n"
        f"sys.exit(', '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_errors_need_no_torch():
    code = (
        "import sys, prosect\nprosect.BadInput, prosect.verify, prosect.VerificationFailed, prosect.assay\n"
        f"sys.exit(', '.join(m for m in {HEAVY[:5]} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_room_is_its_door():
    """``prosect.assay`` is the package and can be called, however it was imported first."""
    import prosect.assay as room
    from prosect.assay import assay

    assert prosect.assay is room and callable(room)
    assert inspect.getdoc(assay)
    with pytest.raises(prosect.BadInput):
        prosect.assay("./nowhere-at-all.toml")
    assert issubclass(prosect.BadInput, prosect.ProsectError)
    assert issubclass(prosect.BadInput, ValueError)
