package cmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"appview/cmd/term"
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

func TestOneInterruptEndsAQuestion(t *testing.T) {
	t.Parallel()
	silence, hold := io.Pipe() // somebody who does not type
	t.Cleanup(func() { _ = hold.Close() })
	ctx, interrupt := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := term.ReadLine(ctx, silence)
		asked <- err
	}()
	interrupt()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{"y\nn\n": "y\n", "y": "y", "": ""} {
		if got, err := term.ReadLine(t.Context(), strings.NewReader(text)); got != want || err != nil {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}
