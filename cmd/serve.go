package cmd

import (
	"context"
	"errors"
	"io"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/internal/network"
	"appview/server"
	"appview/server/answer"
	"appview/server/apikey"
	"appview/store/index"
)

// Defaults of a server.
const (
	defaultDataDir      = "./appview-data"
	defaultMaxJobs      = 2
	defaultMaxHosts     = 128
	defaultReposPerHost = 4
	defaultRefresh      = 24 * time.Hour
	leastRefresh        = time.Minute // below it, a job would hardly end before the next
)

// gcPercent is how much may be allocated before memory is looked for again, in
// percent of what is in use. A job uses little and allocates a lot: at Go's own
// value, half of this, the looking takes a sixth of its processor time.
const gcPercent = 200

type serveOptions struct {
	service     service.Config
	collections []string
	publicURL   string
	logLevel    string
	logFormat   string
}

func newServeCommand(p *program) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Index the network and serve what was indexed",
		Long: `Serve opens the database, goes on with unfinished jobs, and answers requests.

With --collection it tracks a collection, also one that was removed at run time, and
starts a job that reads it from the whole network, unless one is unfinished or was
completed before. Tracked collections are read again as often as --refresh says.

Every flag has an environment variable, shown in brackets; a flag beats it.
` + envAdminKey + `, if set, is a key that has every permission; ` + envAdminKey + fileSuffix + `
names a file that holds it. Otherwise a first start makes one, and writes it to
admin.key in the data directory.`,
		Example: `  appview serve --collection xyz.statusphere.status --contact mailto:you@example.com
  appview serve --data-dir /var/lib/appview --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.env("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			// Whoever reads the log may go, as a journal does that is started anew.
			signal.Ignore(syscall.SIGPIPE)
			o.service.LimitMemory = p.env("GOMEMLIMIT") == ""
			o.service.Hooks, o.service.NotifySocket = p.hooks, p.env(service.EnvNotify)
			var err error
			if o.service.AdminKey, err = p.secret(envAdminKey); err != nil {
				return err
			}
			return serve(cmd.Context(), cmd.ErrOrStderr(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.service.Listen, "listen", service.DefaultListen, "address to answer on, or unix:/PATH of a socket")
	f.StringVar(&o.service.BasePath, "base-path", "", "path that everything stands behind, such as /appview/, for a proxy that keeps it; /health, /ready and /metrics answer without it too")
	f.StringVar(&o.service.DataDir, "data-dir", defaultDataDir, "directory of the database and the admin key")
	f.StringVar(&o.service.Relay, "relay", network.DefaultRelay, "relay that lists repos; it must offer listReposByCollection")
	f.StringVar(&o.service.PLC, "plc", network.DefaultPLC, "directory of did:plc identities")
	f.StringSliceVar(&o.collections, "collection", nil, "collection to track; may be repeated, or separated by commas")
	f.BoolVar(&o.service.AllowPrivate, "allow-private-hosts", false, "let relay, directory and PDS hosts have private or loopback addresses, any port and plain http")
	f.IntVar(&o.service.MaxJobs, "max-jobs", defaultMaxJobs, "jobs over the network worked on at once; the others wait")
	f.IntVar(&o.service.MaxHosts, "max-hosts", defaultMaxHosts, "hosts read from at once, over all jobs")
	f.IntVar(&o.service.ReposPerHost, "repos-per-host", defaultReposPerHost, "repos read at once from one host, by a job")
	f.Float64Var(&o.service.HostRPS, "host-rps", network.DefaultHostRPS, "requests a second to one host, over all jobs")
	f.Float64Var(&o.service.PLCRPS, "plc-rps", network.DefaultPLCRPS, "requests a second to the directory of identities")
	f.StringVar(&o.service.Contact, "contact", "", "URL or mail address to show to the hosts that are read from")
	f.DurationVar(&o.service.Refresh, "refresh", defaultRefresh, "how old a tracked collection may become before it is read again; 0: it is not")
	f.StringVar(&o.publicURL, "public-url", "", "URL under which clients reach the server, with its path, such as https://example.com/appview")
	f.StringSliceVar(&o.service.AllowHosts, "allow-host", nil, "name under which metrics and profiles are answered without a key, beside addresses and names that nobody else can own; may be repeated")
	f.StringSliceVar(&o.service.CORSOrigins, "cors-origin", nil, "origin of pages that may use the admin API, with a key, such as https://admin.example.com; may be repeated")
	f.BoolVar(&o.service.NoPublicReads, "no-public-reads", false, "do not answer /xrpc and /api, which need no key")
	f.IntVar(&o.service.Connections, "max-connections", 0, "connections of clients at once; one more, and another gives way (default: a quarter of the open files that the system allows, at most 1024)")
	f.Int64Var(&o.service.AnswerBytes, "max-answer-bytes", answer.DefaultAnswerBytes, "bytes that answers under way may take; with more, those that are taken slowest are cut off")
	f.Int64Var(&o.service.AccountBytes, "max-account-bytes", index.DefaultMaxAccountBytes, "bytes of the database that one account may take; what would make it more is not stored")
	f.StringVar(&o.service.MetricsListen, "metrics-listen", "", "address to answer /metrics and profiles (/debug/pprof) on; without it /metrics is answered with everything else, and there are no profiles")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	configurable(cmd, "listen", "base-path", "data-dir", "relay", "plc", "collection", "allow-private-hosts", "max-jobs", "max-hosts",
		"repos-per-host", "host-rps", "plc-rps", "contact", "refresh", "public-url", "allow-host", "cors-origin", "no-public-reads", "max-connections", "max-answer-bytes", "max-account-bytes", "metrics-listen", "log-level", "log-format")
	return cmd
}

// check finds every mistake in the options.
func (o *serveOptions) check() error {
	var errs []error
	if o.service.AdminKey != "" {
		if err := apikey.Check(o.service.AdminKey); err != nil {
			errs = append(errs, service.Usagef("%s: %w", envAdminKey, err))
		}
	}
	for _, text := range o.collections {
		c, err := syntax.ParseNSID(text)
		if err != nil {
			errs = append(errs, service.Usagef("collection %q is no valid NSID", text))
		}
		o.service.Collections = append(o.service.Collections, c.Normalize())
	}
	basePath, err := server.ParseBasePath(o.service.BasePath)
	if err != nil {
		errs = append(errs, service.Usagef("--base-path: %w", err))
	}
	o.service.BasePath = basePath
	if o.publicURL != "" {
		u, err := server.ParsePublicURL(o.publicURL)
		if err != nil {
			errs = append(errs, service.Usagef("--public-url: %w", err))
		}
		o.service.PublicURL = u
	}
	for _, text := range o.service.AllowHosts {
		if _, err := server.ParseHostName(text); err != nil {
			errs = append(errs, service.Usagef("--allow-host: %w", err))
		}
	}
	for _, text := range o.service.CORSOrigins {
		if _, err := server.ParseOrigin(text); err != nil {
			errs = append(errs, service.Usagef("--cors-origin: %w", err))
		}
	}
	for name, n := range map[string]int{
		"--max-jobs": o.service.MaxJobs, "--max-hosts": o.service.MaxHosts, "--repos-per-host": o.service.ReposPerHost,
	} {
		if n < 1 {
			errs = append(errs, service.Usagef("%s is %d, it must be at least 1", name, n))
		}
	}
	if d := o.service.Refresh; d != 0 && d < leastRefresh {
		errs = append(errs, service.Usagef("--refresh is %s, it must be 0 or at least %s", d, leastRefresh))
	}
	if err := o.boundConnections(); err != nil {
		errs = append(errs, err)
	}
	if o.service.AnswerBytes < answer.LeastAnswerBytes {
		errs = append(errs, service.Usagef("--max-answer-bytes is %d, it must be at least %d", o.service.AnswerBytes, answer.LeastAnswerBytes))
	}
	if o.service.AccountBytes < index.LeastMaxAccountBytes {
		errs = append(errs, service.Usagef("--max-account-bytes is %d, it must be at least %d", o.service.AccountBytes, index.LeastMaxAccountBytes))
	}
	for name, rps := range map[string]float64{"--host-rps": o.service.HostRPS, "--plc-rps": o.service.PLCRPS} {
		if !(rps > 0) {
			errs = append(errs, service.Usagef("%s is %g, it must be above 0", name, rps))
		}
	}
	return errors.Join(errs...)
}

// Bounds of the connections of clients.
const (
	leastConnections = 16
)

// boundConnections leaves the network and the file their part of the open files.
func (o *serveOptions) boundConnections() error {
	files, known := maxOpenFiles()
	n := &o.service.Connections
	switch {
	case *n == 0 && known:
		*n = int(max(leastConnections, min(service.DefaultConnections, files/4)))
	case *n == 0:
		*n = service.DefaultConnections
	case *n < leastConnections:
		return service.Usagef("--max-connections is %d, it must be at least %d", *n, leastConnections)
	case known && uint64(*n) > files/2:
		return service.Usagef("--max-connections is %d, at most half of the %d open files that the system allows may be clients': raise that (ulimit -n, LimitNOFILE)", *n, files)
	}
	return nil
}

func serve(ctx context.Context, stderr io.Writer, o serveOptions) error {
	log, err := newLog(stderr, o.logLevel, o.logFormat)
	if err = errors.Join(err, o.check()); err != nil {
		return err
	}
	if o.service.AllowPrivate {
		log.WarnContext(ctx, "private and loopback hosts are allowed: whoever can publish a DID document can make this machine ask any address it can reach")
	}
	o.service.Log, o.service.Version = log, version()
	s, err := service.New(ctx, o.service)
	if errors.Is(err, context.Canceled) {
		return nil // asked to end before it had begun
	}
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
