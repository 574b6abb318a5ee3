package term

import "testing"

func TestNumbersAreReadable(t *testing.T) {
	t.Parallel()
	for n, text := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := Number(&n); got != text {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := Number(nil); got != "-" {
		t.Errorf("nil: %s", got)
	}
	for n, text := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 5 << 40: "5.0 TiB"} {
		if got := Size(n); got != text {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestTimesAreReadable(t *testing.T) {
	t.Parallel()
	for seconds, text := range map[int64]string{
		0: "0s", 59: "59s", 60: "1m", 119: "1m59s", 1000: "16m40s", 7200: "2h", 12_000: "3h20m", 172_800: "2d", 1_053_000: "12d4h",
	} {
		if got := Span(seconds); got != text {
			t.Errorf("%d: %s", seconds, got)
		}
	}
}
