package cmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"appview/cmd/term"
)

// download is an answer in lines of JSON that is not read as a whole.
type download struct {
	path string
	name string // of the answer
	unit string // what a line stands for, in plural
}

func (d download) brokeOff(lines int64, err error) error {
	return fmt.Errorf("the %s broke off after %d %s: %w", d.name, lines, d.unit, err)
}

// printDownload writes the lines to where a command prints.
func printDownload(cmd *cobra.Command, c *client, d download) error {
	out := bufio.NewWriter(term.JSONTo(cmd.OutOrStdout()))
	_, err := c.download(cmd.Context(), d, out)
	if flushed := out.Flush(); err == nil { // else it says no more
		err = flushed
	}
	return err
}

// saveDownload writes the lines to a file, and says how many there were.
func saveDownload(cmd *cobra.Command, c *client, d download, output string) error {
	n, err := c.downloadFile(cmd.Context(), d, output)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s %s to %s\n", term.Count(n), d.unit, output)
	return err
}

// download copies the lines to w and returns how many there were. What breaks off
// is an error: a part must not be taken for the whole.
func (c *client) download(ctx context.Context, d download, w io.Writer) (n int64, err error) {
	res, err := c.send(ctx, http.MethodGet, d.path, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	lines := lineCounter{w: w}
	if _, err := io.Copy(&lines, res.Body); err != nil {
		return lines.n, d.brokeOff(lines.n, err)
	}
	return lines.n, nil
}

// lineCounter counts the lines that pass.
type lineCounter struct {
	w io.Writer
	n int64
}

func (l *lineCounter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	for _, b := range p[:n] {
		if b == '\n' {
			l.n++
		}
	}
	return n, err
}

// downloadFile writes the lines to a file that appears only when it is complete.
func (c *client) downloadFile(ctx context.Context, d download, output string) (n int64, err error) {
	err = replaceFile(output, func(f *os.File) error {
		n, err = c.download(ctx, d, f)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("write the %s to %s: %w", d.name, output, err)
	}
	return n, nil
}
