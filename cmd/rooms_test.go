package cmd_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestProgramLinksNothingThatIsForTests asks the go command what the program is made of.
func TestProgramLinksNothingThatIsForTests(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "appview").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, "appview/internal/sandbox") {
		t.Error("the demo has no network: this looks at the wrong program")
	}
	for _, name := range linked {
		if strings.HasPrefix(name, "appview/internal/sandbox/") && name != "appview/internal/sandbox/encode" {
			t.Errorf("the program links %s", name)
		}
	}
}
