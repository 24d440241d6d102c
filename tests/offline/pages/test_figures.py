from offline.pages.figures import count, day, moment, plain, signed


def test_figures_are_written_without_their_leading_zero():
    assert [plain(value) for value in (0.0831, 0.0, 1.0, None)] == [".083", ".000", "1.000", "no example"]
    found = [signed(value) for value in (0.0082, -0.0082, 0.0, -1.0, None)]
    assert found == ["+.008", "-.008", "+.000", "-1.000", "no example"]


def test_counts_have_groups_of_three_digits():
    assert [count(number) for number in (999, 12345.6, 10**6)] == ["999", "12,346", "1,000,000"]


def test_times_of_any_size_have_a_day():
    assert [day(0), day(951_782_400_000), day(-1)] == ["1970-01-01", "2000-02-29", "1969-12-31"]
    assert day(2**62)
    assert moment(951_782_461_999) == "2000-02-29T00:01:01Z"
