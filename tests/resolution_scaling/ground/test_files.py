"""Files are replaced as a whole or not at all."""

import pytest

from resolution_scaling.ground.files import replacing


def test_the_new_file_takes_the_old_ones_place_at_the_end(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replacing(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
        assert partial.parent == tmp_path  # a rename inside one file system
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_the_old_file_stands_and_nothing_lies_beside_it(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def interrupted(partial):
        partial.write_text("half")
        raise error

    with pytest.raises(error), replacing(str(file)) as partial:
        interrupted(partial)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_reported_by_the_writer(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "a.txt") as partial:
        partial.write_text("new")
