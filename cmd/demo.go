package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
	"appview/internal/record"
	"appview/internal/sandbox"
)

// The demo's network is on this machine: it need not be spared.
const (
	demoRPS      = 100_000
	demoPerJob   = 16
	demoEvery    = 100 * time.Millisecond
	defaultRepos = 300
	defaultHosts = 8
)

type demoOptions struct {
	listen  string
	dataDir string
	repos   int
	hosts   int
	seed    int64
	exit    bool
}

func newDemoCommand(p *program) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole thing on an invented network: nothing else is needed",
		Long: `Demo invents a network on this machine (a relay, a directory of identities, and
hosts with signed repos), starts a server over it, runs a backfill, compares what
was indexed with what there is, and stays up so that it can be tried out.`,
		Example: `  appview demo
  appview demo --repos 5000 --hosts 40 --exit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.demo(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", service.DefaultListen, "address to answer on; if it is in use, another port is taken")
	f.StringVar(&o.dataDir, "data-dir", "", "directory to keep the data in (default: a temporary one, removed at the end)")
	f.IntVar(&o.repos, "repos", defaultRepos, "repos to invent")
	f.IntVar(&o.hosts, "hosts", defaultHosts, "hosts to spread them over")
	f.Int64Var(&o.seed, "seed", 1, "another number invents another network")
	f.BoolVar(&o.exit, "exit", false, "end when the backfill has ended; exit 1 if the index is not exact")
	return cmd
}

func (p *program) demo(cmd *cobra.Command, o demoOptions) (err error) {
	// Whoever reads what it prints may go, as head does: it ends then, and removes
	// what it has made. The signal that says so comes for its clients, too.
	signal.Ignore(syscall.SIGPIPE)
	gone := make(chan struct{}, 1)
	cmd.SetOut(heard(cmd.OutOrStdout(), gone))
	cmd.SetErr(heard(cmd.ErrOrStderr(), gone))
	out := cmd.OutOrStdout()
	temporary := o.dataDir == ""
	if temporary {
		if o.dataDir, err = os.MkdirTemp("", "appview-demo-"); err != nil {
			return fmt.Errorf("make a temporary data directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dataDir)) }()
	}
	say(out, "inventing %d repos on %d hosts", o.repos, o.hosts)
	world, err := sandbox.New(sandbox.Config{Seed: o.seed, Repos: o.repos, Hosts: o.hosts})
	if err != nil {
		return service.AsUsage(err)
	}
	s, err := openDemo(cmd, o, world)
	if err != nil {
		return errors.Join(err, world.Close())
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return world.Run(gctx) })
	g.Go(func() error { return s.Run(gctx) })
	g.Go(func() error {
		select {
		case <-gone:
			stop()
		case <-gctx.Done():
		}
		return nil
	})
	g.Go(func() error {
		example, err := tour(gctx, term.NewDisplay(out, p.env("TERM")), out, s, world)
		switch {
		case o.exit:
			stop()
		case err == nil:
			err = next(out, s, o.dataDir, example)
		case ctx.Err() != nil:
			err = nil // asked to end in the middle of it
		}
		return err
	})
	if err := g.Wait(); err != nil || o.exit {
		return err
	}
	left := "its data is removed"
	if !temporary {
		left = "its data is in " + o.dataDir
	}
	say(out, "\nThe demo has ended; %s.", left)
	return nil
}

// openDemo opens a server over the world, on another port if it has to.
func openDemo(cmd *cobra.Command, o demoOptions, world *sandbox.World) (*service.Service, error) {
	log, err := newLog(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return nil, err
	}
	cfg := service.Config{
		Version: version(), Log: log,
		Listen: o.listen, DataDir: o.dataDir, Relay: world.RelayURL(), PLC: world.PLCURL(), AllowPrivate: true,
		HostRPS: demoRPS, RelayRPS: demoRPS, PLCRPS: demoRPS,
		MaxJobs: defaultMaxJobs, MaxHosts: defaultMaxHosts, ReposPerHost: demoPerJob,
	}
	s, err := service.New(cmd.Context(), cfg)
	if !service.IsErrno(err, syscall.EADDRINUSE, service.WSAAddrInUse) {
		return s, err
	}
	host, _, errSplit := net.SplitHostPort(o.listen)
	if errSplit != nil {
		return nil, err
	}
	say(cmd.OutOrStdout(), "%s is in use: taking another port", o.listen)
	cfg.Listen = net.JoinHostPort(host, "0")
	return service.New(cmd.Context(), cfg)
}

// tour runs a backfill, shows how it goes and proves its result. It returns the
// URI of a record that was indexed.
func tour(ctx context.Context, show term.Display, out io.Writer, s *service.Service, world *sandbox.World) (example string, err error) {
	collection := sandbox.StatusCollection.String()
	key, err := s.Key()
	if err != nil {
		return "", err
	}
	c := &client{http: &http.Client{Transport: &http.Transport{}}, base: s.URL(), at: s.URL(), key: key, from: "the demo"}
	defer c.http.CloseIdleConnections()
	say(out, "backfill of %s from the whole network", collection)
	began := time.Now()
	var made api.JobRef
	if err := c.post(ctx, "/admin/backfill", fmt.Sprintf(`{"collection":%q}`, collection), &made); err != nil {
		return "", err
	}
	job, err := c.watch(ctx, show, made.ID.String(), watching{every: demoEvery})
	if err == nil {
		err = job.Err()
	}
	if err != nil {
		return "", err
	}
	took := time.Since(began).Round(10 * time.Millisecond)
	index, err := c.exported(ctx, withQuery("/admin/records/export", "collection", collection))
	if err != nil {
		return "", err
	}
	truth := world.Truth(sandbox.StatusCollection)
	if err := compare(index, truth); err != nil {
		return "", err
	}
	say(out, "done in %s: all %d records are indexed, none is missing, extra or different", took, len(index))
	if len(truth) == 0 {
		return "", errors.New("this seed invents no records: try more --repos")
	}
	return slices.Min(slices.Collect(maps.Keys(truth))), nil
}

// post sends a body and decodes the answer.
func (c *client) post(ctx context.Context, path, body string, into *api.JobRef) error {
	answer, err := c.call(ctx, http.MethodPost, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	return decodeAnswer(answer, into)
}

// compare tells how an index differs from the truth.
func compare(index map[string]string, truth map[string]sandbox.Record) error {
	missing, different := 0, 0
	for uri, r := range truth {
		switch cid, there := index[uri]; {
		case !there:
			missing++
		case cid != r.CID:
			different++
		}
	}
	extra := len(index) - (len(truth) - missing)
	if missing+different+extra > 0 {
		return fmt.Errorf("the index is not exact: %d records are missing, %d extra, %d different", missing, extra, different)
	}
	return nil
}

// next says what to try. The lines work as they are printed, from the first to the last.
func next(out io.Writer, s *service.Service, dataDir, example string) error {
	uri, err := record.ParseURI(example)
	if err != nil {
		return err
	}
	key, err := s.Key()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	appview, curl := shellWord(os.Args[0]), "  curl -s "
	admin := curl + `-H "Authorization: Bearer $KEY" `
	for _, line := range []string{
		"",
		"Open " + s.URL() + " in a browser, and sign in with this key:",
		"  " + key,
		"Or try, in another terminal:",
		fmt.Sprintf("%s'%s/api/records?collection=%s&limit=3'", curl, s.URL(), uri.Collection),
		fmt.Sprintf("%s'%s/xrpc/com.atproto.repo.getRecord?repo=%s&collection=%s&rkey=%s'", curl, s.URL(), uri.DID, uri.Collection, uri.RKey),
		"",
		"  KEY=" + key,
		fmt.Sprintf("%s%s/admin/backfill/status", admin, s.URL()),
		fmt.Sprintf(`%s-d '{"collection":"%s"}' %s/admin/backfill`, admin, sandbox.NoteCollection, s.URL()),
		fmt.Sprintf("%s'%s/admin/records/export?collection=%s'", admin, s.URL(), uri.Collection),
		"",
		fmt.Sprintf("  export %s=%s", envName("data-dir"), shellWord(dir)),
		fmt.Sprintf("  %s stats", appview),
		fmt.Sprintf("  %s backfill create --collection %s --watch", appview, sandbox.UnknownCollection),
		fmt.Sprintf("  %s records list --collection %s", appview, uri.Collection),
		"Ctrl-C ends it.",
	} {
		say(out, "%s", line)
	}
	return nil
}

// shellWord quotes what a shell would take apart.
func shellWord(s string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:=@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !bare(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// listened is an output that somebody reads, and tells when nobody does any more.
type listened struct {
	io.Writer

	gone chan<- struct{} // with room for one
}

func (l listened) Write(p []byte) (int, error) {
	n, err := l.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		select {
		case l.gone <- struct{}{}:
		default:
		}
	}
	return n, err
}

// heard is w, and tells when nobody reads it any more. A terminal ends with a signal.
func heard(w io.Writer, gone chan<- struct{}) io.Writer {
	if term.IsTerminal(w) {
		return w
	}
	return listened{w, gone}
}

// say prints a line of the demo.
func say(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
