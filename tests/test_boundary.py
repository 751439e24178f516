"""Errors of other people's code end where they are meant to."""

import gc
import weakref

import pytest

from nasplat.boundary import catching


def test_any_error_is_handed_over_and_the_rest_goes_on() -> None:
    seen: list[Exception] = []
    with catching(seen.append):
        raise LookupError("gone")
    assert [str(error) for error in seen] == ["gone"]
    with catching(seen.append):
        pass
    assert len(seen) == 1


def test_what_the_handler_raises_takes_its_place() -> None:
    def refuse(error: Exception) -> None:
        raise ValueError("no network") from error

    with pytest.raises(ValueError, match="no network") as caught, catching(refuse):
        raise LookupError("gone")
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interrupts_go_through(error: type[BaseException]) -> None:
    with pytest.raises(error), catching(lambda _: pytest.fail("an interrupt is no error")):
        raise error


def test_nothing_of_the_error_is_kept() -> None:
    class Big:
        pass

    def fail() -> weakref.ref[Big]:
        big = Big()
        alive.append(weakref.ref(big))
        raise LookupError

    alive: list[weakref.ref[Big]] = []
    gc.disable()
    try:
        with catching():
            fail()
        assert alive[0]() is None
    finally:
        gc.enable()
