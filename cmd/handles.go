package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/util/ssrf"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"appview/cmd/service"
	"appview/server/control"
)

// Bounds of looking handles up.
const (
	handleTimeout   = 15 * time.Second // of one
	handlesAtOnce   = 8
	handleRedirects = 3
	maxNamesFile    = 4 << 20 // bytes of a file of names
)

// handleResolver finds the account that a handle names.
type handleResolver interface {
	ResolveHandle(ctx context.Context, handle syntax.Handle) (syntax.DID, error)
}

// newHandles looks handles up where their owners publish them: in DNS, else at the
// host of that name, which must be at a public address.
func newHandles() *identity.BaseDirectory {
	transport := ssrf.PublicOnlyTransport()
	transport.Proxy = nil // it would see for us where a name leads
	return &identity.BaseDirectory{
		HTTPClient: http.Client{
			Transport: transport,
			Timeout:   handleTimeout,
			CheckRedirect: func(_ *http.Request, via []*http.Request) error {
				if len(via) > handleRedirects {
					return fmt.Errorf("redirected more than %d times", handleRedirects)
				}
				return nil
			},
		},
		UserAgent: "appview/" + version(),
	}
}

// repoNames are the repos that a command line names.
type repoNames struct {
	names []string // DIDs and handles
	file  string   // with one a line; none if empty
}

func (n *repoNames) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&n.names, "did", nil, "only the repo of this DID, or of this handle; may be repeated")
	f.StringVar(&n.file, "dids-file", "", "only the repos of the DIDs and handles in this file, one a line (-: the standard input)")
}

// dids returns the DIDs of all repos that are named, none if there was no flag.
// What looks like a DID is left for the server to judge.
func (n *repoNames) dids(cmd *cobra.Command, p *program) ([]string, error) {
	names := n.names
	if cmd.Flags().Changed("dids-file") {
		listed, err := readNames(cmd.InOrStdin(), n.file)
		if err != nil {
			return nil, err
		}
		names = append(slices.Clip(names), listed...)
	}
	if len(names) > control.MaxDIDs {
		return nil, service.Usagef("%d repos are named, a job takes at most %d: make several jobs", len(names), control.MaxDIDs)
	}
	dids := make([]string, len(names))
	handles := map[int]syntax.Handle{}
	for i, name := range names {
		if name == "" || strings.HasPrefix(name, "did:") {
			dids[i] = name
			continue
		}
		h, err := syntax.ParseHandle(strings.TrimPrefix(strings.TrimPrefix(name, "at://"), "@"))
		if err != nil {
			return nil, service.Usagef("%q is neither a DID nor a handle", name)
		}
		handles[i] = h.Normalize()
	}
	return dids, p.lookUp(cmd, handles, dids)
}

// lookUp puts the DIDs of handles where they belong, and shows them: the job will
// only know the DIDs.
func (p *program) lookUp(cmd *cobra.Command, handles map[int]syntax.Handle, dids []string) error {
	if len(handles) == 0 {
		return nil
	}
	resolver := p.handles
	if resolver == nil {
		resolver = newHandles()
	}
	errs := make([]error, len(dids)) // each has its place
	var g errgroup.Group
	g.SetLimit(handlesAtOnce)
	for i, h := range handles {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(cmd.Context(), handleTimeout)
			defer cancel()
			did, err := resolver.ResolveHandle(ctx, h)
			if err == nil && did == "" {
				err = errors.New("no account was found")
			}
			if err != nil {
				errs[i] = fmt.Errorf("look up the handle %s: %w", h, err)
			}
			dids[i] = did.String()
			return nil
		})
	}
	if err := errors.Join(g.Wait(), errors.Join(errs...)); err != nil {
		return err
	}
	for i := range dids {
		if h, isHandle := handles[i]; isHandle {
			if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s is %s\n", h, dids[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readNames reads a file with a name a line. Empty lines and those that begin with
// # are left out. A file without names is an error: it must not mean everything.
func readNames(stdin io.Reader, path string) (names []string, err error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, service.Usagef("--dids-file: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	limited := &io.LimitedReader{R: in, N: maxNamesFile}
	lines := bufio.NewScanner(limited)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !strings.HasPrefix(name, "#") {
			names = append(names, name)
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("read %s: %w", path, lines.Err())
	case limited.N == 0:
		return nil, service.Usagef("--dids-file %s is larger than %d MiB", path, maxNamesFile>>20)
	case len(names) == 0:
		return nil, service.Usagef("--dids-file %s names no repo: leave the flag out to cover every repo", path)
	}
	return names, nil
}
