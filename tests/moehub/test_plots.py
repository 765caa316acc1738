import sys
from pathlib import Path

import pytest

from moehub import plots
from moehub.errors import ConfigError

BEGINS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml"}


def draw(
    file: Path, *, names: tuple[str, ...] = ("law", "code"), values: tuple[float | None, ...] = (1.0, -2.0)
) -> Path:
    with plots.figure(file, title="A title", size=(6, 2), note="A note.") as (panel,):
        plots.bars(panel, names, values, title="nats")
    return file


@pytest.mark.parametrize("ending", plots.ENDINGS)
def test_a_figure_is_written_in_the_format_of_its_name(tmp_path: Path, ending: str) -> None:
    """PNG or SVG; nothing else is left in the folder, which is made where it is missing."""
    file = draw(tmp_path / "new" / f"figure{ending}")
    assert file.read_bytes().startswith(BEGINS[ending])
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("ending", plots.ENDINGS)
def test_equal_figures_are_equal_bytes(tmp_path: Path, ending: str) -> None:
    """No date and no random name is in them."""
    assert draw(tmp_path / f"a{ending}").read_bytes() == draw(tmp_path / f"b{ending}").read_bytes()


def test_a_figure_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where drawing fails the file that stood there stays, and no other is left."""
    file = tmp_path / "figure.png"
    file.write_bytes(b"before")
    with pytest.raises(ValueError, match="shape mismatch"):
        draw(file, names=("law", "code"), values=(1.0, 2.0, 3.0))
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_the_style_stays_in_the_figure(tmp_path: Path) -> None:
    """Whoever draws with matplotlib beside us finds its settings as they were."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """Dollars are no formulas; a name that is too long is cut."""
    text = draw(tmp_path / "figure.svg", names=("a$b$c", "x" * 60)).read_text(encoding="utf-8")
    assert "<!-- a$b$c -->" in text
    assert f"<!-- {'x' * 27}… -->" in text


def test_a_bar_has_its_value_beside_it(tmp_path: Path) -> None:
    """None is no bar and has no value."""
    text = draw(tmp_path / "figure.svg", names=("a", "b", "c"), values=(1.25, -0.5, None)).read_text(encoding="utf-8")
    assert "<!-- 1.25 -->" in text
    assert "<!-- -0.50 -->" in text
    assert plots.RED in text
    assert "<!-- 0.00 -->" not in text


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.pdf"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    """The sentence names those that there are."""
    with pytest.raises(ConfigError, match=r"is no name for a figure, expected one that ends in \.png or \.svg"):
        plots.require(tmp_path / name)


def test_a_missing_library_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib is an extra; the file is not touched."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"needs matplotlib, which is not installed .*pip install 'moehub\[plot\]'"):
        draw(tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_dots_stand_on_their_intervals(tmp_path: Path) -> None:
    """Names and values are written, and equal figures are equal bytes."""
    for name in ("one.svg", "two.svg"):
        with plots.figure(tmp_path / name, title="t", size=(4, 2)) as panels:
            plots.dots(
                panels[0], ["x", "y"], [1034.0, 966.0], [(1001.0, 1070.0), (930.0, 999.0)], title="r", form="{:.0f}"
            )
            low, high = panels[0].get_xlim()
            assert low < 930
            assert high > 1070
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "1034" in drawn
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")
