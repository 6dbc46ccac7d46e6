from __future__ import annotations

import pytest

from services.downloader.transfer.space import MIN_MARGIN, Mode, Room, margin, missing_bytes, mode_for, reservation

GB = 10**9
SIZE = 5 * GB


@pytest.mark.parametrize(
    ("room", "size", "floor", "missing"),
    [
        pytest.param(Room(free=SIZE + MIN_MARGIN), SIZE, 0, 0, id="just enough for one copy"),
        pytest.param(Room(free=SIZE + MIN_MARGIN - 1), SIZE, 0, 1, id="one byte short"),
        pytest.param(Room(free=MIN_MARGIN, own_data=SIZE), SIZE, 0, 0, id="own data counts as usable"),
        pytest.param(Room(free=MIN_MARGIN, own_data=GB, own_copy=4 * GB), SIZE, 0, 0, id="so does the copy"),
        pytest.param(Room(free=2 * SIZE, reserved=2 * SIZE), SIZE, 0, SIZE + MIN_MARGIN, id="others come first"),
        pytest.param(Room(free=11 * GB), SIZE, 12 * GB, 1 * GB, id="required_disk_space_gb is a floor"),
        pytest.param(Room(free=9 * GB), None, 10 * GB, 1 * GB, id="an unknown size needs at least the floor"),
        pytest.param(Room(free=10 * GB), None, 10 * GB, 0, id="an unknown size with the floor free"),
        pytest.param(Room(free=0, reserved=GB), SIZE, 0, SIZE + MIN_MARGIN, id="usable is never negative"),
    ],
)
def test_missing_bytes(room: Room, size: int | None, floor: int, missing: int) -> None:
    assert missing_bytes(room, size, floor) == missing


@pytest.mark.parametrize(
    ("room", "mode"),
    [
        pytest.param(Room(free=2 * SIZE + MIN_MARGIN), Mode.NORMAL, id="room for two"),
        pytest.param(Room(free=2 * SIZE + MIN_MARGIN - 1), Mode.LOW_SPACE, id="one byte short of two"),
        pytest.param(Room(free=SIZE + MIN_MARGIN, own_data=SIZE), Mode.NORMAL, id="what is there counts"),
        pytest.param(Room(free=3 * SIZE, reserved=2 * SIZE), Mode.LOW_SPACE, id="room for two, but for others"),
    ],
)
def test_a_generation_begins_in_low_space_mode_where_there_is_room_for_one_copy_only(room: Room, mode: Mode) -> None:
    assert mode_for(room, SIZE) is mode


def test_the_margin_is_two_percent_of_a_large_file_and_256_mib_of_a_small_one() -> None:
    assert margin(GB) == MIN_MARGIN == 256 * 1024 * 1024
    assert margin(100 * GB) == 2 * GB


@pytest.mark.parametrize(
    ("data", "copy", "normal", "low_space"),
    [(0, 0, 200, 100), (100, 0, 100, 0), (40, 0, 160, 60), (30, 50, 120, 20), (104, 104, 0, 0)],
)
def test_a_reservation_is_what_a_download_still_has_to_write(data: int, copy: int, normal: int, low_space: int) -> None:
    assert reservation(100, data, copy, Mode.NORMAL) == normal
    assert reservation(100, data, copy, Mode.LOW_SPACE) == low_space
