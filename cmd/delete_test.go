package cmd

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestDeletionIsConfirmed(t *testing.T) {
	t.Parallel()
	cmd := &cobra.Command{}
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetIn(strings.NewReader("y\n")) // a pipe: whatever comes was not meant as an answer
	if err := confirm(cmd, "Delete?"); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without a terminal: %v", err)
	}
	silence, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silence.Close() })
	cmd.SetIn(silence)
	if err := confirm(cmd, "Delete?"); exitCode(err) == exitOK {
		t.Error("silence is taken for a yes")
	}
}
