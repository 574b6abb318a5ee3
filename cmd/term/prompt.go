package term

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// ReadLine reads a line, or gives up when ctx ends: Ctrl-C must not have to be pressed
// twice. The reading is then left behind; it ends with the process.
func ReadLine(ctx context.Context, in io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- answer{line, err}
	}()
	select {
	case a := <-read:
		return a.line, a.err
	case <-ctx.Done():
		return "", fmt.Errorf("interrupted: %w", ctx.Err())
	}
}
