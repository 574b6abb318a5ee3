package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/store"
)

// Exit codes. They are part of the interface: never renumber.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitLocked  = 3
	exitDamaged = 4
	exitSignal  = 130
)

const rootHelp = `appview keeps an exact index of atproto records: it finds every repo that has
records of a collection, reads them from the hosts where they live, and serves
them from one file.

See it work, without any network:
  appview demo

Index a collection and serve it:
  appview serve --collection xyz.statusphere.status

Exit codes:
  0    clean
  1    error
  2    usage: a flag, an argument or an APPVIEW_ variable is wrong
  3    another process has the database open
  4    the database cannot be read, or is newer than this program
  130  a second signal: ended at once`

// program is one run of the command line.
type program struct {
	environ []string       // as os.Environ gives it
	handles handleResolver // nil: where the owners of handles publish them
	hooks   store.Hooks    // tests hold commits up here
	started bool           // a command has been found, with its flags and arguments
}

// Execute runs the command line of this process and returns its exit code.
func Execute() int { return (&program{environ: os.Environ()}).execute() }

// execute runs the command line of this process. The first signal asks the command
// to end; a second one does not wait for it.
func (p *program) execute() int {
	// Libraries print here what hosts make them print: net/http every answer that
	// nobody asked for, with the host's own words. What matters goes to the log.
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	done := make(chan int, 1)
	go func() { done <- p.run(ctx, os.Args[1:], os.Stdout, os.Stderr) }()
	for asked := false; ; asked = true {
		select {
		case code := <-done:
			return code
		case s := <-signals:
			if asked && s != syscall.SIGHUP { // a terminal that is closed says so twice
				return exitSignal
			}
			cancel()
		}
	}
}

// run runs one command line.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return (&program{environ: environ}).run(ctx, args, stdout, stderr)
}

func (p *program) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := p.newRoot() //nolint:contextcheck // the commands get it from ExecuteContext
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !p.started {
		err = service.AsUsage(err)
	}
	_, _ = fmt.Fprintln(stderr, "appview:", term.Plain(strings.ReplaceAll(err.Error(), "\n", "; ")))
	return exitCode(err)
}

// exitCode is the one map from errors to exit codes.
func exitCode(err error) int {
	var usage service.UsageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, store.ErrLocked):
		return exitLocked
	case errors.Is(err, store.ErrNewer), errors.Is(err, store.ErrOlder), errors.Is(err, store.ErrDamaged):
		return exitDamaged
	default:
		return exitError
	}
}

func (p *program) newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:           "appview",
		Short:         "Keeps an exact index of atproto records",
		Long:          rootHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			p.started = true
			return p.applyEnv(cmd)
		},
	})
	root.AddCommand(
		newServeCommand(p), newBackfillCommand(p), newRecordsCommand(p), newDenylistCommand(p), newStatsCommand(p),
		newCollectionsCommand(p), newKeysCommand(p), newAuditCommand(p),
		newBackupCommand(p), newCheckCommand(), newCompactCommand(), newDemoCommand(p), newVersionCommand(),
	)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return service.Usagef("%w: see %s --help", explainValue(err), cmd.CommandPath())
	})
	addCompletions(root)
	root.SetUsageTemplate(fitted(root.UsageTemplate()))
	walkCommands(root, explain)
	return root
}

// suggestWithin is how many letters of a command may be wrong for it to be guessed.
const suggestWithin = 2

// group makes cmd a command that does nothing but hold others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			perhaps := ""
			cmd.SuggestionsMinimumDistance = suggestWithin
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				perhaps = ", perhaps " + strings.Join(like, " or ")
			}
			return service.Usagef("unknown command %q%s: see %s --help", args[0], perhaps, cmd.CommandPath())
		}
		return cmd.Help()
	}
	return cmd
}
