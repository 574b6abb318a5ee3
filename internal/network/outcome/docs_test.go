package outcome

import (
	"os"
	"strings"
	"testing"
)

func TestEveryReasonIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Why a repo was not read\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, r := range Reasons() {
		explained := false
		for line := range strings.Lines(table) {
			first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
			explained = explained || strings.Contains(first, "`"+string(r)+"`")
		}
		if !explained {
			t.Errorf("docs/operating.md does not say what %s means", r)
		}
	}
}
