package cmd

import (
	"slices"
	"strings"
	"testing"
)

// completes asks as a shell does, and returns what is offered.
func completes(t *testing.T, args ...string) []string {
	t.Helper()
	code, out, errs := runs(t, []string{"APPVIEW_ACTIVE_HELP=0"}, append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if code != exitOK || !strings.HasPrefix(last, ":") || strings.Contains(out+errs, "appview: ") {
		t.Errorf("%v\nended with %d, printed:\n%s%s", args, code, out, errs)
	}
	return lines[:len(lines)-1]
}

func TestCompletionOffersWhatIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"backfill list --status ":                   {"running", "pausing", "paused", "cancelling", "cancelled", "completed", "failed"},
		"backfill repos x --state ":                 {"pending", "done", "empty", "unavailable", "failed"},
		"backfill show ":                            nil,
		"backfill create --collection ":             nil,
		"records list --order ":                     {"indexed", "rkey"},
		"collections remove x --records ":           {"keep", "delete"},
		"keys create x --permission stats:read,rec": {"stats:read,records:delete", "stats:read,records:read"},
		"serve --log-level ":                        {"debug", "info", "warn", "error"},
	} {
		if got := completes(t, strings.Split(line, " ")...); !slices.Equal(got, want) {
			t.Errorf("%q: offered %q, want %q", line, got, want)
		}
	}
}

func TestEveryShellHasItsScript(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		want(t, exitOK, "__complete", nil, "completion", shell)
	}
}
